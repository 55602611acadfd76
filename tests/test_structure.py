"""The package's structure: no circular dependency, no crowded folder, and who may talk to the other ranks.

The allowed direction between the top packages stands in pyproject.toml, [tool.importlinter]; `make lint` checks it.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from project import ROOT

PACKAGE = ROOT / "spe_dist"
FILES_IN_A_FOLDER = 15
SHARE_OF_A_TOP_FOLDER = 0.30


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Names that running the code imports, inside functions too; what is for type checking alone is left out.

    `from a import b` gives both `a` and `a.b`, whichever of them is the module.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for alternative in node.orelse:
                yield from imported(alternative)
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports are not used here"
            yield from (f"{node.module}.{name.name}" for name in node.names)
            yield node.module
        yield from imported(node)


IMPORTS = {name: set(imported(ast.parse(path.read_text(encoding="utf-8")))) for name, path in MODULES.items()}


def modules_imported_by(name: str) -> set[str]:
    """The modules of the package that `name` imports; `from a import b` means `a.b` where that is a module."""
    found = {other for other in IMPORTS[name] if other in MODULES}
    packages = {
        package
        for package in found
        if any(other.startswith(f"{package}.") for other in found) and is_only_prefix(name, package)
    }
    return found - packages - {name}


def is_only_prefix(name: str, package: str) -> bool:
    """Whether `name` imports nothing from `package` but modules inside it."""
    members = {other for other in IMPORTS[name] if other.rpartition(".")[0] == package}
    return all(member in MODULES for member in members)


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: modules_imported_by(name) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circular dependency: {' <- '.join(error.args[1])}")


def test_a_circle_would_be_found() -> None:
    source = (
        "def later():\n    from spe_dist.utils import files\nimport torch\nif TYPE_CHECKING:\n    import spe_dist.cli\n"
    )
    assert set(imported(ast.parse(source))) == {"spe_dist.utils.files", "spe_dist.utils", "torch"}
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()


def test_no_folder_is_crowded() -> None:
    files = Counter(path.parent.relative_to(ROOT).as_posix() for path in MODULES.values())
    assert {folder: count for folder, count in files.items() if count > FILES_IN_A_FOLDER} == {}


def test_no_top_folder_holds_more_than_its_share_of_the_code() -> None:
    lines: Counter[str] = Counter()
    for path in MODULES.values():
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text(encoding="utf-8").splitlines())
    limit = SHARE_OF_A_TOP_FOLDER * lines.total()
    assert {folder: count for folder, count in lines.items() if count > limit} == {}


@pytest.mark.parametrize("library", ["deepspeed", "torch.distributed"])
def test_only_distributed_talks_to_other_ranks(library):
    """import-linter checks deepspeed too; parts of other packages, such as torch.distributed, it cannot tell apart."""
    users = {
        name
        for name, names in IMPORTS.items()
        if any(other == library or other.startswith(f"{library}.") for other in names)
    }
    assert {name for name in users if not name.startswith("spe_dist.distributed.")} == set()
    assert users, f"nobody imports {library}: does this test still look at the right thing?"

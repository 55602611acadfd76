"""What the documentation takes from the code while it is built, so that it cannot go stale.

    docs_site.py NAME [ARGUMENT ...]      print one part, as Markdown

A hook of mkdocs (mkdocs.yml) puts the parts into the pages, each in place of a line
`<!-- generated: NAME ARGUMENT -->`:

    settings pretraining|finetuning   tables of every setting, its default and what the presets make of it
    help COMMAND ...                  what `spe COMMAND ... --help` prints
    imports                           which package may import which, from the contracts in pyproject.toml
    tree                              packages and modules of spe_dist with the first sentence of their docstrings
    views FILE                        the output of `spe shards show` in a page, drawn: spans, shuffled words, views
    notebook FILE                     the cells of a notebook with their saved outputs
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

MARK = re.compile(r"^<!-- generated: (\w+)(.*?)-->$", re.MULTILINE)
HELP_COLUMNS = "110"


def on_files(files: Any, config: Any) -> Any:
    """mkdocs calls this with the files of the site: the examples join them, under files/."""
    from mkdocs.structure.files import File

    for example in sorted((ROOT / "examples").iterdir()):
        if example.suffix in (".sh", ".ipynb"):
            files.append(File.generated(config, f"files/{example.name}", abs_src_path=str(example)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for every page."""
    return MARK.sub(lambda found: GENERATORS[found[1]](*found[2].split()), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """mkdocs calls this for every page, in HTML: a mean stays with its deviation."""
    return html.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


# Settings.


def settings(kind: str) -> str:
    """Every setting of a training in tables, a section each, with the values of the presets."""
    from spe_dist.config.finetuning import FinetuneConfig
    from spe_dist.config.loading import leaves
    from spe_dist.config.presets import PRESETS
    from spe_dist.config.pretraining import Config

    config_class: type = {"pretraining": Config, "finetuning": FinetuneConfig}[kind]
    presets = PRESETS[config_class]
    by_section: dict[str, list[str]] = {}
    for leaf in leaves(config_class).values():
        changed = _of_presets(leaf.name, leaf.default, presets)
        name = f"**`--{leaf.name}`**" if leaf.common else f"`--{leaf.name}`"
        cells = (name, _shown(leaf.default), changed, _escaped(leaf.help))
        by_section.setdefault(leaf.section, []).append(f"| {' | '.join(cells)} |")
    head = "| setting | default | presets | meaning |\n|---|---|---|---|\n"
    titles = {section: f"### {section} {{ #{kind}-{section} }}" for section in by_section}
    return "\n\n".join(f"{titles[section]}\n\n{head}" + "\n".join(rows) for section, rows in by_section.items())


def _of_presets(name: str, default: Any, presets: Mapping[str, Mapping[str, Any]]) -> str:
    values = {preset: values[name] for preset, values in presets.items() if name in values}
    return "<br>".join(f"{preset}: {_shown(value)}" for preset, value in values.items() if value != default)


def _shown(value: Any) -> str:
    if value is None or value == () or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*])", r"\\\1", text)


# Commands.


def command_help(*words: str) -> str:
    """The help of a command, as a block of text."""
    environment = {**os.environ, "COLUMNS": HELP_COLUMNS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "spe_dist", *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return f"```text\n{done.stdout.rstrip()}\n```"


# The tree of the code.


def tree() -> str:
    """A list of all packages with what each is for, and their modules folded away."""
    parts = []
    for package in packages():
        modules = [f"- `{file.name}`: {_escaped(sentence(file))}" for file in modules_of(package)]
        title = f"<code>{package.relative_to(ROOT)}/</code> {_html(sentence(package / '__init__.py'))}"
        inner = "\n".join(modules)
        parts.append(f'<details markdown="1"><summary>{title}</summary>\n\n{inner}\n\n</details>')
    return "\n\n".join(parts)


def packages() -> list[Path]:
    """spe_dist and every package in it, parents first."""
    return sorted(file.parent for file in (ROOT / "spe_dist").rglob("__init__.py"))


def modules_of(package: Path) -> list[Path]:
    return sorted(file for file in package.glob("*.py") if file.name != "__init__.py")


def sentence(file: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].split()))[0]


def _html(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", text)


# Imports.


def imports() -> str:
    """The contracts of import-linter, which `make lint` enforces: the layers of the packages and what is forbidden."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = []
    for contract in project["tool"]["importlinter"]["contracts"]:
        name, kind = contract["name"], contract["type"]
        if kind == "layers":
            layers = "\n".join(layer.replace(" | ", "  ·  ") for layer in contract["layers"])
            parts.append(f"**{name}.** A package imports only from lines below its own.\n\n```text\n{layers}\n```")
        elif kind == "forbidden":
            importers, imported = (_listed(contract[f"{key}_modules"]) for key in ("source", "forbidden"))
            parts.append(f"**{name}.** {importers} must not import {imported}.")
        else:
            parts.append(f"**{name}.**")
    return "\n\n".join(parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# A training example, drawn.

SPANS = ("L", "s1", "M", "s2", "R")


def views(file: str) -> str:
    """Rows of coloured spans of the first `spe shards show` output in a page: sentence, shuffled, both views."""
    text = (ROOT / file).read_text(encoding="utf-8")
    spans = dict(re.findall(r"^span (\w+) +words \[\d+, \d+\) ?(.*)$", text, re.MULTILINE))
    shuffled = spans | dict(re.findall(r"^permuted (\w+) +label \d \(.*?\): (.*)$", text, re.MULTILINE))
    rows = [("sentence", [spans[name] for name in SPANS]), ("shuffled", [shuffled[name] for name in SPANS])]
    for view in ("span-pair view", "context view"):
        line = re.search(rf"^{view} +\[CLS\] (.*) \[SEP\]$", text, re.MULTILINE)
        assert line, f"{file} has no {view}"
        rows.append((view, [part.strip() for part in line[1].split("|")]))
    drawn = "".join(f"<tr><th>{title}</th>{''.join(map(_span, SPANS, parts))}</tr>" for title, parts in rows)
    heads = "".join(f"<th>{name}</th>" for name in SPANS)
    return f'<div class="views"><table class="views"><tr><th></th>{heads}</tr>{drawn}</table></div>'


def _span(name: str, pieces: str) -> str:
    shown = _html(pieces).replace("[MASK]", '<span class="mask">[MASK]</span>')
    return f'<td class="{name}">{shown}</td>'


# Notebooks.


def notebook(file: str) -> str:
    """A notebook's cells as Markdown, the outputs that are saved in it below each."""
    cells = json.loads((ROOT / file).read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _cell(cell))


def _cell(cell: Mapping[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    parts = [f"```python\n{source}\n```"]
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "text/html" in data:
            parts.append("".join(data["text/html"]))
        elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
            parts.append(f"```text\n{text}\n```")
    return parts


GENERATORS: Mapping[str, Callable[..., str]] = {
    "settings": settings,
    "help": command_help,
    "tree": tree,
    "imports": imports,
    "views": views,
    "notebook": notebook,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(GENERATORS))
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    print(GENERATORS[options.name](*options.arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())

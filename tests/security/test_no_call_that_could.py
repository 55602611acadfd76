"""No call in the package that could run what it reads; those that stand here say why they do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from project import ROOT

FORBIDDEN = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load", "shelve.open"),
    *(
        "marshal.load",
        "marshal.loads",
        "pandas.read_pickle",
        "torch.load",
        "torch.jit.load",
        "torch.hub.load",
        "np.load",
    ),
    *("numpy.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "importlib.import_module"),
    *("runpy.run_path", "runpy.run_module", "webdataset.gopen", "gopen", "string.Template"),
}
METHODS = {"extractall", "extract"}  # of archives
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}
LOADERS = {"AutoTokenizer", "AutoModel", "AutoConfig", "BertModel", "BertConfig", "BertTokenizer"}  # of transformers

# (file, call): why it runs nothing that was read
ALLOWED = {
    ("spe_dist/__init__.py", "importlib.import_module"): "names of its own modules",
    ("spe_dist/benchmark/checkpoints.py", "torch.load"): "weights_only=True: tensors that it has just written itself",
    ("spe_dist/benchmark/data/opening.py", "pickle.loads"): "what it has pickled itself a line before",
    ("spe_dist/benchmark/gpu_check/__main__.py", "importlib.import_module"): "names of its own stages",
    ("spe_dist/cli/doctor.py", "importlib.import_module"): "a name that stands there",
    ("spe_dist/cli/main.py", "importlib.import_module"): "names of its own commands",
    ("spe_dist/config/yaml_file.py", "yaml.load"): "with StrictLoader, a SafeLoader: plain values only",
    ("spe_dist/distributed/context.py", "pickle.loads"): "an error of this process that it has pickled itself",
    ("spe_dist/export/pspe.py", "torch.load"): "weights_only=True: tensors and plain values; the predecessor's format",
    ("spe_dist/extraction/formats/__init__.py", "importlib.import_module"): "names of its own modules",
    ("spe_dist/model/kernels.py", "importlib.import_module"): "names that stand there",
    ("spe_dist/training/optimizer.py", "importlib.import_module"): "a name that stands there",
    ("spe_dist/utils/reading/bounded.py", "shell=True"): "pipe: a command that the user typed; names in it are safe",
}
SAFE_KEYWORD = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
FILES = sorted([*(ROOT / "spe_dist").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])


def findings(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Calls that could run what they are given, and keywords that would let others do so."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            yield name, node
        owner, _, method = name.rpartition(".")
        if method == "from_pretrained" and owner in LOADERS and not has_keyword(node, "trust_remote_code", False):
            yield f"{name} without trust_remote_code=False", node
        for keyword in node.keywords:
            if keyword.arg in KEYWORDS and not is_constant(keyword.value, not KEYWORDS[keyword.arg]):
                yield f"{keyword.arg}={ast.unparse(keyword.value)}", node


def is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def has_keyword(node: ast.Call, name: str, value: object) -> bool:
    return any(keyword.arg == name and is_constant(keyword.value, value) for keyword in node.keywords)


def test_nothing_that_is_read_can_be_run():
    found, unsafe = set(), []
    for path in FILES:
        file = path.relative_to(ROOT).as_posix()
        for name, node in findings(ast.parse(path.read_text(encoding="utf-8"))):
            found.add((file, name))
            if name in SAFE_KEYWORD and not has_keyword(node, *SAFE_KEYWORD[name]):
                unsafe.append(f"{file}:{node.lineno} {name} without {'='.join(map(str, SAFE_KEYWORD[name]))}")
    assert unsafe == []
    assert sorted(found - ALLOWED.keys()) == [], "calls that could run what they read: avoid them, or say here why not"
    assert sorted(ALLOWED.keys() - found) == [], "these are gone: remove them from ALLOWED"


@pytest.mark.parametrize(
    "source",
    [
        *(
            "eval(x)",
            "torch.load(f)",
            "pickle.load(f)",
            "tar.extractall(d)",
            "run(c, shell=True)",
            "run(c, shell=flag)",
        ),
        *("np.load(f, allow_pickle=True)", "AutoTokenizer.from_pretrained(f)", "m.load(f, weights_only=False)"),
    ],
)
def test_such_a_call_would_be_found(source):
    assert list(findings(ast.parse(source)))

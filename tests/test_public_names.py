"""What `import spe_dist` offers, and that it is loaded only when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from project import ROOT

import spe_dist

HEAVY = ("deepspeed", "numpy", "torch", "transformers")


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE
    ).stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = run(f"import sys, spe_dist; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "[]\n"


def test_corpora_and_scores_need_no_torch():
    program = "import sys, spe_dist; spe_dist.read_corpus, spe_dist.score; print('torch' in sys.modules)"
    assert run(program) == "False\n"


@pytest.mark.parametrize("name", spe_dist.__all__)
def test_every_public_name_is_listed_and_loads(name):
    assert name in dir(spe_dist)
    value = getattr(spe_dist, name)
    assert value is getattr(spe_dist, name)
    assert name == "__version__" or value.__name__ == name


def test_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from spe_dist import *", names)
    assert set(spe_dist.__all__) <= names.keys()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'spe_dist' has no attribute 'Extracter'"):
        spe_dist.Extracter  # noqa: B018

"""The wheel in an empty environment: every command from a folder that knows nothing of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from project import ROOT

from spe_dist.cli.main import COMMANDS
from spe_dist.distributed.ports import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]

SMALL = "--hidden_size=32 --layers=1 --attention_heads=2 --intermediate_size=48 --span_size=24 --cnn_channels=8".split()
SMALL += "--attention_size=16 --position_size=8 --precision=float32".split()
PRETRAINING = [*SMALL, "--tbo_offset_size=8", "--contrastive_size=16", "--queue_keys=50", "--steps=3"]
PRETRAINING += ["--global_batch_sentences=16", "--evaluate_sentences=32", "--loader_workers=0"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git knows of, so that nothing is left behind here."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("spe_dist", "ds_configs", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `env` that holds the wheel; other packages are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("foreign")
    env = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(env), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = (env / "lib").glob("python*/site-packages")
    others = [path for path in sys.path if path.endswith("-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")  # its own .pth files, so of editable installs, count not
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Command:
    """`run(program, *arguments, status=0)`: a program of the environment, in the folder; it ends with `status`."""
    environment = ENVIRONMENT | {
        "PATH": f"{place / 'env/bin'}{os.pathsep}{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
    }

    def call(program: str, *arguments: object, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        command = [str(place / "env" / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=environment, timeout=600)
        assert status in (None, done.returncode), f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return call


def test_the_package_is_the_wheels(run: Command, place: Path) -> None:
    where = run("python", "-c", "import spe_dist; print(spe_dist.__file__)").stdout
    assert where.startswith(str(place / "env"))


def test_all_files_that_are_no_modules_travel_with_the_wheel(wheel: Path) -> None:
    package = ROOT / "spe_dist"
    files = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert sorted(files - names) == []
    assert not [name for name in names if not name.startswith(("spe_dist/", "spe_dist-"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(run: Command, command: str) -> None:
    assert run("spe", command, "--help").stdout.startswith(f"usage: spe {command}")


@pytest.fixture(scope="module")
def corpus(run: Command, place: Path) -> Path:
    run("python", "-m", "spe_dist.demo.corpus", "--output", "corpus", "--sentences", 400)
    return place / "corpus"


@pytest.fixture(scope="module")
def shards(run: Command, corpus: Path) -> str:
    made = run("spe", "shards", "make", "--input", corpus / "text.txt", "--output", "shards", "--train_vocab", 600)
    assert "next: spe pretrain --shards shards" in made.stdout
    assert "all as the manifest says" in run("spe", "shards", "verify", "shards").stdout
    assert "[MASK]" in run("spe", "shards", "show", "shards", "--sentence", 3).stdout
    return "shards"


@pytest.fixture(scope="module")
def encoder(run: Command, shards: str) -> str:
    trained = run("spe", "pretrain", "--shards", shards, "--output", "pretrained", "--deepspeed=zero1", *PRETRAINING)
    assert "next: spe export pretrained" in trained.stdout
    assert "next: spe finetune --start encoder" in run("spe", "export", "pretrained", "encoder").stdout
    return "encoder"


@pytest.fixture(scope="module")
def model(run: Command, encoder: str, corpus: Path) -> str:
    files = [f"--{part}={corpus}/extraction/{part}.json" for part in ("train", "dev", "test")]
    given = ["--start", encoder, "--output", "finetuned", "--epochs=1", "--precision=float32", *files]
    assert "next: spe predict finetuned/model" in run("spe", "finetune", *given).stdout
    return "finetuned/model"


def test_from_text_to_scores(run: Command, place: Path, corpus: Path, model: str) -> None:
    gold = corpus / "extraction" / "test.json"
    (place / "notes.txt").write_text("Ada Lovelace lived in London.\n")
    run("spe", "predict", model, "notes.txt", "--output", "notes.jsonl", "--html", "notes.html")
    assert (place / "notes.jsonl").read_text().count("\n") == 1 and (place / "notes.html").stat().st_size > 1_000
    run("spe", "predict", model, gold, "--format", "corpus", "--output", "found.json")
    run("spe", "score", "--gold", gold, "--predictions", "found.json")
    run("spe", "compare", "--gold", gold, "--a", "found.json", "--b", gold, "--output", "page.html")
    assert (place / "page.html").stat().st_size > 1_000
    run("spe", "corpus", "inspect", gold)
    run("spe", "corpus", "convert", gold, "test_dygie.json", "--to", "dygie")


@pytest.mark.distributed
def test_several_ranks_start_by_module(run: Command, shards: str, corpus: Path, encoder: str) -> None:
    several = ["spe_dist.pretrain", "--shards", shards, *PRETRAINING, "--output"]
    ranks = ("--num_gpus", 2, "--master_port", free_port())
    done = run("python", "-m", "deepspeed.launcher.runner", *ranks, "--module", *several, "a", "--deepspeed", "zero2")
    assert "ZeRO stage 2" in done.stdout and "2 ranks" in done.stdout
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port")
    assert "2 ranks" in run("python", *torchrun, free_port(), "-m", *several, "b").stdout
    files = [f"--train={corpus}/extraction/train.json", f"--dev={corpus}/extraction/dev.json", "--epochs=1"]
    finetune = ["spe_dist.finetune", *files, "--precision=float32", "--start", encoder, "--output", "c"]
    assert "2 ranks" in run("python", *torchrun, free_port(), "-m", "--", *finetune).stdout


def test_files_of_the_package_are_found_by_name(run: Command, place: Path) -> None:
    shown = run("spe", "experiments", "run", "demo", "--dry_run").stdout
    assert re.search(r"new +pretraining/spe ", shown) and "-m spe_dist shards make" in shown
    wrong = run("spe", "pretrain", "--deepspeed", "zero4", "--shards", "nowhere", "--output", "never", status=2)
    assert "zero1, zero2, zero2_offload, zero3" in wrong.stderr and not (place / "never").exists()


def test_speed_and_machine(run: Command, shards: str) -> None:
    options = ["--size", "2x128", "--batch", "8", "--keys", "64", "--seconds", "0", "--rounds", "1"]
    assert "a step of 1 rank" in run("spe", "benchmark", "pretrain", "--shards", shards, *options).stdout
    assert "kernel: attention" in run("spe", "doctor", status=None).stdout  # 1 where this machine has problems


def test_a_source_distribution_holds_the_same(tmp_path: Path) -> None:
    code = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "spe_dist", copy / "spe_dist", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy / name)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"spe_dist/py.typed", "spe_dist/ds_configs/zero2.json", "spe_dist/experiments/files/demo.yaml"} <= names

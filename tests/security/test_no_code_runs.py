"""Files that try to run code when they are read: each would make a marker file, which must not appear."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from project import ROOT

from spe_dist.errors import SpeError
from tests.data.conftest import random_shards  # noqa: F401 - a fixture

CODE = "open({marker!r}, 'w').close()"


class Runs:
    """Unpickled, this makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # where a module that a file names would be found
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # somebody who agrees to every question
    return tmp_path / "MARKER"


def refused_or_read(read: Callable[[], object]) -> None:
    """A file is read, or refused in one line; nothing else."""
    try:
        read()
    except SpeError as error:
        assert "\n" not in str(error)


def test_the_marker_would_be_seen(marker):
    pickle.loads(pickle.dumps(Runs(marker)))
    assert marker.exists()


@pytest.mark.parametrize(
    "name", ["$(touch MARKER).tar", "`touch MARKER`", "x;touch MARKER;.tar", "../MARKER", "|touch MARKER"]
)
def test_names_in_a_manifest(random_shards, marker, tmp_path, name):  # noqa: F811
    from spe_dist.data.shards.store import ShardStore

    folder = shutil.copytree(random_shards, tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_text())
    for change in ("shard", "tokenizer", "index"):
        changed = json.loads(json.dumps(manifest))
        if change == "shard":
            changed["splits"]["train"][0]["name"] = name
        elif change == "tokenizer":
            changed["tokenizer"]["files"] = {name: 64 * "0"}
        else:
            changed["index"]["name"] = name
        (folder / "manifest.json").write_text(json.dumps(changed))
        for source in (str(folder), f"pipe:cat {folder}/{{}}"):
            with pytest.raises(SpeError):
                ShardStore.open(source, cache_dir=str(tmp_path / "cache")).block(0)
    assert not marker.exists()


@pytest.mark.parametrize("file", ["blocks.npy", "train-00000.tar", "manifest.json"])
def test_objects_in_the_files_of_shards(random_shards, marker, tmp_path, file):  # noqa: F811
    from spe_dist.data.shards.store import ShardStore

    folder = shutil.copytree(random_shards, tmp_path / "shards")
    objects = np.array([Runs(marker)] * 15, dtype=object)
    if file == "blocks.npy":
        np.save(folder / file, objects)
    else:
        (folder / file).write_bytes(pickle.dumps(Runs(marker)))
    with pytest.raises(SpeError):
        ShardStore.open(str(folder)).block(0)
    if file != "manifest.json" and file != "blocks.npy":
        ShardStore.open(str(folder)).verify()
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "steps: !!python/object/apply:os.system ['touch MARKER']",
        "output: !!python/object/new:os.system ['touch MARKER']",
        "steps: !!python/name:os.system ''",
        "steps: !!python/module:module_with_code ''",
        "shards: 'pipe:touch MARKER'",
        "data: {shards: ' pipe:touch MARKER'}",
        "tokenizer: '$(touch MARKER)'",
    ],
)
def test_settings_and_experiments(marker, tmp_path, text):
    from spe_dist.cli.pretrain import main
    from spe_dist.config.loading import load_config
    from spe_dist.experiments.file import read_experiment

    (tmp_path / "module_with_code.py").write_text(CODE.format(marker=str(marker)))
    file = tmp_path / "config.yaml"
    file.write_text(text)
    refused_or_read(lambda: load_config(preset=None, yaml_file=str(file), given={}))
    refused_or_read(lambda: read_experiment(file))
    if "pipe:" in text:
        with pytest.raises(SpeError, match=r"would run a command.*--shards"):
            load_config(preset=None, yaml_file=str(file), given={})
        assert load_config(preset=None, yaml_file=str(file), given={"shards": "x"}).data.shards == "x"
    assert callable(main) and not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"torch_autocast": {"enabled": True, "lower_precision_safe_modules": ["module_with_code.Linear"]}},
        {"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "$(touch MARKER)"}}},
        {"optimizer": {"type": "module_with_code.Adam"}},
        {"scheduler": {"type": "os.system", "params": {"command": "touch MARKER"}}},
    ],
)
def test_deepspeed_configs(marker, tmp_path, content):
    from spe_dist.config.pretraining import Config
    from spe_dist.distributed.deepspeed_config import BatchPlan, complete, load_deepspeed_config

    (tmp_path / "module_with_code.py").write_text(CODE.format(marker=str(marker)))
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(content))
    refused_or_read(lambda: complete(load_deepspeed_config(str(file)), Config(), BatchPlan(256, 1, 8, 32), "float32"))
    assert not marker.exists() and "module_with_code" not in sys.modules


def with_code(folder: Path, marker: Path) -> None:
    """Names of code in every JSON file of a folder, and the code beside them."""
    for module in ("modeling_x", "tokenization_x", "configuration_x"):
        code = f"{CODE.format(marker=str(marker))}\nclass X: pass\n"
        (folder / f"{module}.py").write_text(code)
        (folder.parent / f"{module}.py").write_text(code)
    auto_map = {
        "AutoConfig": "configuration_x.X",
        "AutoModel": "modeling_x.X",
        "AutoTokenizer": ["tokenization_x.X", "tokenization_x.X"],
    }
    for name in ("config.json", "tokenizer_config.json", "spe_config.json", "extractor.json", "labels.json"):
        document = json.loads((folder / name).read_text())
        document |= {"auto_map": auto_map, "trust_remote_code": True, "_attn_implementation": "modeling_x/X"}
        document |= {"attn_implementation": "modeling_x/X", "quantization_config": {"quant_method": "modeling_x"}}
        document |= {"tokenizer_class": "X"} if name == "tokenizer_config.json" else {}
        (folder / name).write_text(json.dumps(document))


def readers_of_models(folder: Path) -> list[Callable[[], object]]:
    from spe_dist import Extractor, SpanPairEncoder
    from spe_dist.config.pretraining import ModelConfig
    from spe_dist.data.text.vocabulary import load_tokenizer
    from spe_dist.export import load_pretraining_model
    from spe_dist.model.loading import load_encoder

    return [
        lambda: Extractor.from_pretrained(folder),
        lambda: SpanPairEncoder.from_pretrained(folder),
        lambda: load_pretraining_model(folder),
        lambda: load_encoder(str(folder), ModelConfig(), 10, 0),
        lambda: load_tokenizer(folder),
    ]


def test_models_that_name_code(extractor_folder, marker, tmp_path):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    with_code(folder, marker)
    for read in readers_of_models(folder):
        refused_or_read(read)
    assert not marker.exists()


@pytest.mark.parametrize("form", ["torch", "pickle", "joined"])
def test_pickled_weights_and_heads(extractor_folder, marker, tmp_path, form):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    state = {"embeddings.word_embeddings.weight": torch.zeros(2, 2), "x": Runs(marker)}
    for name in ("pytorch_model.bin", "model.safetensors", "spe_heads.safetensors", "extractor_heads.safetensors"):
        if form == "torch":
            torch.save(state, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(Runs(marker)) * (2 if form == "joined" else 1))
    for read in readers_of_models(folder)[:4]:
        with pytest.raises(SpeError):
            read()
    for name in ("model.safetensors", "spe_heads.safetensors", "spe_config.json"):
        (folder / name).unlink()
    with pytest.raises(SpeError):
        readers_of_models(folder)[3]()  # a plain encoder, whose weights are pytorch_model.bin
    assert not marker.exists()


def test_the_predecessors_checkpoint(marker, tmp_path):
    from spe_dist.export.pspe import read_pspe

    file = tmp_path / "checkpoint.pt"
    for protocol in (2, 4):
        torch.save({"span_pair_encoder.x": Runs(marker)}, file, pickle_protocol=protocol)
        with pytest.raises(SpeError, match=r"tensors only|cannot be read"):
            read_pspe(file)
    file.write_bytes(pickle.dumps(Runs(marker)))
    with pytest.raises(SpeError):
        read_pspe(file)
    assert not marker.exists()


def test_every_file_of_a_checkpoint(marker, tmp_path):
    """Each is in turn a pickle that would run, with a right checksum, when the checkpoint is exported."""
    from checkpoint_maker import make_checkpoint, write_state

    from spe_dist.export.checkpoint import read_checkpoint

    made = make_checkpoint(tmp_path / "run")
    files = [path for path in made.folder.rglob("*") if path.is_file()]
    assert len(files) >= 4
    state = (made.folder / "state.json").read_bytes()
    for path in files:
        sound = path.read_bytes()
        path.write_bytes(pickle.dumps(Runs(marker)))
        if path.name != "state.json":
            write_state(made.folder)
        for encoder in ("query", "key"):
            refused_or_read(lambda encoder=encoder: read_checkpoint(made.folder, encoder))
        path.write_bytes(sound)
        (made.folder / "state.json").write_bytes(state)
    assert not marker.exists()


def test_text_and_corpora(marker, tmp_path):
    from spe_dist.extraction.formats import read_corpus
    from spe_dist.extraction.predicting.inputs import read_inputs

    for name, content in (("a.txt", b"$(touch MARKER) `touch MARKER`\n"), ("a.json", pickle.dumps(Runs(marker)))):
        (tmp_path / name).write_bytes(content)
        refused_or_read(lambda name=name: list(read_inputs([str(tmp_path / name)])))
        refused_or_read(lambda name=name: read_corpus(tmp_path / name))
    assert not marker.exists()


def test_a_page_of_predictions_shows_text_and_runs_none_of_it(extractor_folder, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text('a <script>alert(1)</script> bc "><img src=x onerror=alert(1)> d .\n')
    command = [sys.executable, "-m", "spe_dist", "predict", str(extractor_folder), str(text), "--html", "page.html"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page

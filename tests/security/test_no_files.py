"""Pipes, devices and links where files should be, as somebody may have packed them: refused at once."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spe_dist.errors import CheckpointError, DataError, SpeError
from spe_dist.utils.reading.files import check_file, open_file
from spe_dist.utils.reading.json_file import read_json
from tests.data.conftest import random_shards  # noqa: F401 - a fixture

SECONDS = 30


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    def end(*_: object) -> None:
        raise AssertionError(f"it waits for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = (pipe, device, link_to_nothing, link_to_itself)


@pytest.mark.parametrize("make", KINDS)
def test_a_file_is_opened_and_nothing_else(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(OSError):
        open_file(tmp_path / "x")
    with pytest.raises(DataError, match=r"x (is a pipe or device|is a link to nothing|cannot be read)"):
        check_file(tmp_path / "x")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    check_file(tmp_path / "link")
    check_file(tmp_path / "missing")  # for whoever opens it to say
    with open_file(tmp_path / "link") as file:
        assert file.read() == b"content"


def test_a_shells_substitution_is_read_where_a_user_may_name_a_file(tmp_path):
    read, write = os.pipe()
    os.write(write, b"{}")
    os.close(write)
    assert read_json(f"/dev/fd/{read}", "", from_pipe=True) == {}
    with pytest.raises(DataError, match="a pipe or device, not a file"):
        read_json(f"/dev/fd/{read}", "")
    os.close(read)


@pytest.mark.parametrize("name", ["manifest.json", "blocks.npy", "train-00000.tar"])
@pytest.mark.parametrize("make", KINDS)
def test_shards(random_shards, tmp_path, name, make):  # noqa: F811
    from spe_dist.data.shards.store import ShardStore

    folder = shutil.copytree(random_shards, tmp_path / "shards")
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(DataError):
        ShardStore.open(str(folder)).block(0)
    if name.endswith(".tar"):
        assert f"{name}: missing" in str(ShardStore.open(str(folder)).verify())


def readers(folder: Path) -> dict[str, Callable[[], object]]:
    from spe_dist.config.pretraining import ModelConfig
    from spe_dist.data.text.vocabulary import load_tokenizer
    from spe_dist.extraction.joint.folder import load_extractor
    from spe_dist.model.loading import load_encoder

    encoder = lambda: load_encoder(str(folder), ModelConfig(), 10, 0)  # noqa: E731
    whole = ("extractor.json", "labels.json", "spe_heads.safetensors", "extractor_heads.safetensors")
    return {
        **dict.fromkeys(whole, lambda: load_extractor(folder)),
        **dict.fromkeys(("config.json", "model.safetensors", "pytorch_model.bin"), encoder),
        **dict.fromkeys(("tokenizer.json", "tokenizer_config.json", "vocab.txt"), lambda: load_tokenizer(folder)),
    }


@pytest.mark.parametrize("make", KINDS)
def test_models(extractor_folder, tmp_path, make):
    folder = shutil.copytree(extractor_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    for name, read in readers(folder).items():
        aside = folder.with_name("aside")
        shutil.move(folder / name, aside) if (folder / name).exists() else None
        make(folder / name)
        with pytest.raises(SpeError):
            read()
        (folder / name).unlink()
        shutil.move(aside, folder / name) if aside.exists() else None


@pytest.mark.parametrize("make", KINDS)
def test_a_predecessors_checkpoint_and_a_pointer_to_checkpoints(tmp_path, make):
    from checkpoint_maker import make_checkpoint

    from spe_dist.distributed.checkpoint import find_checkpoint
    from spe_dist.export.pspe import read_pspe

    make(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError):
        read_pspe(tmp_path / "checkpoint.pt")
    made = make_checkpoint(tmp_path / "run")
    (made.run / "checkpoints" / "latest").unlink()
    make(made.run / "checkpoints" / "latest")
    assert find_checkpoint(made.run) == made.folder


@pytest.mark.parametrize("numbers", [10**9, 10**15, 2**62])
def test_an_index_with_more_numbers_than_the_files_hold_takes_no_memory(tmp_path, numbers):
    import json

    from checkpoint_maker import make_checkpoint, write_state

    from spe_dist.export.checkpoint import read_checkpoint

    made = make_checkpoint(tmp_path / "run")
    path = made.folder / "tensors" / "index.json"
    index = json.loads(path.read_text())
    for entry in index["tensors"].values():
        entry |= {"shape": [numbers], "parts": [[0, 0, numbers]]}
    path.write_text(json.dumps(index))
    write_state(made.folder)
    with pytest.raises(CheckpointError, match=r"rank_00000.safetensors has .* bytes, but index.json has parts of"):
        read_checkpoint(made.folder)

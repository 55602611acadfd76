"""Names on the hub: found in the cache without a network, fetched once, given up within seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, hub_server

from spe_dist.cli.main import main
from spe_dist.errors import ConfigError
from spe_dist.utils import hub

SECONDS = 10.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A stand-in for the hub, an empty cache, no token."""
    with hub_server() as running:
        use(monkeypatch, tmp_path, running.address)
        yield running


def use(monkeypatch: pytest.MonkeyPatch, cache: Path, address: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_name_is_fetched_once_and_then_found_without_the_hub(server: HubServer) -> None:
    weights = {"model.safetensors": b"new", "pytorch_model.bin": b"old", "onnx/model.safetensors": b"other"}
    server.files["anna/bert"] = {"config.json": b"{}", "vocab.txt": b"[PAD]", **weights}
    folder = hub.model_folder("anna/bert")
    assert {path.name for path in folder.iterdir()} == {"config.json", "vocab.txt", "model.safetensors"}
    asked = len(server.requests)
    assert hub.model_folder("anna/bert") == folder == hub.tokenizer_folder("anna/bert")
    assert len(server.requests) == asked
    del server.files["anna/bert"]["model.safetensors"]
    server.files["anna/older"] = server.files["anna/bert"]
    assert (hub.model_folder("anna/older") / "pytorch_model.bin").is_file()


def test_a_tokenizer_needs_no_weights_and_a_cache_without_weights_is_no_model(server: HubServer) -> None:
    server.files["anna/bert"] = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"new"}
    folder = hub.tokenizer_folder("anna/bert")
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json"}
    assert (hub.model_folder("anna/bert") / "model.safetensors").is_file()


def test_a_name_that_the_hub_does_not_know_is_an_error_of_one_line(server: HubServer) -> None:
    with pytest.raises(ConfigError, match="there is no anna/nothing on the hub") as raised:
        hub.model_folder("anna/nothing")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("answers", [False, True], ids=["closed", "silent"])
def test_a_hub_that_cannot_be_reached_is_given_up_within_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: bool
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if answers:  # takes connections and says nothing
            bound.listen()
        use(monkeypatch, tmp_path, f"http://127.0.0.1:{bound.getsockname()[1]}")
        for find in (hub.model_folder, hub.tokenizer_folder):
            began = time.monotonic()
            with pytest.raises(ConfigError, match=r"neither a folder nor in .* cannot be reached") as raised:
                find("anna/bert")
            assert time.monotonic() - began < SECONDS and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_stay_what_they_are_and_paths_are_no_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, tmp_path, "http://127.0.0.1:9")
    assert hub.model_folder(str(tmp_path)) == tmp_path
    for path in (f"{tmp_path}/nowhere", "./nowhere", "~/nowhere", "runs/nowhere/model"):
        with pytest.raises(ConfigError, match="does not exist"):
            hub.model_folder(path)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["shards", "make", "--input", "t.txt", "--output", "out", "--tokenizer", "anna/bert"], "tokenizer=anna/bert"),
        (["pretrain", "--shards", "out", "--output", "out", "--encoder", "anna/bert"], "encoder=anna/bert"),
        (["finetune", "--train", "t.txt", "--output", "out", "--start", "anna/bert"], "start=anna/bert"),
        (["finetune", "--train", "t.txt", "--output", "out", "--tokenizer", "anna/bert"], "tokenizer=anna/bert"),
        (["predict", "anna/bert", "t.txt", "--output", "out"], "model=anna/bert"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:-1]) if isinstance(value, list) else "",
)
def test_a_command_given_a_name_that_cannot_be_reached_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    words: str,
) -> None:
    use(monkeypatch, tmp_path / "cache", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("Anna lives in Lund.\n")
    began = time.monotonic()
    assert main(command) == 2
    assert time.monotonic() - began < SECONDS
    error = capsys.readouterr().err
    assert words in error and "http://127.0.0.1:9 cannot be reached" in error and error.count("\n") == 1, error
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]

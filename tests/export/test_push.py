"""Publishing on the hub, against a stand-in on this machine: what is published is what is loaded by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import TOKEN, HubServer, hub_server

from spe_dist import Extractor, SpanPairEncoder
from spe_dist.cli import export
from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import resolve
from spe_dist.distributed.context import RankContext
from spe_dist.errors import ConfigError
from spe_dist.export.push import push
from spe_dist.finetuning.run import publish


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A stand-in for the hub whose user has a token, and an empty cache."""
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def run(*arguments: object) -> int:
    return export.main([str(argument) for argument in arguments])


def test_an_export_is_published_and_loads_by_its_name(
    hub: HubServer, checkpoints: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = checkpoints.make_checkpoint(tmp_path / "run")
    assert run(made.run, tmp_path / "out", "--push", "spe") == 0
    assert f"published: {hub.address}/anna/spe" in capsys.readouterr().out
    assert hub.private == {"anna/spe": True}
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files["anna/spe"] == written
    assert str(tmp_path).encode() not in b"".join(written.values())
    loaded, local = (SpanPairEncoder.from_pretrained(source) for source in ("anna/spe", tmp_path / "out"))
    assert loaded.tokenizer is not None
    for name, tensor in local.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], tensor), name


def test_a_later_model_replaces_all_of_an_earlier_one(hub: HubServer, extractor_folder: Path, tmp_path: Path) -> None:
    assert push(extractor_folder, "anna/extractor", public=True) == f"{hub.address}/anna/extractor"
    assert hub.private == {"anna/extractor": False}
    assert Extractor.from_pretrained("anna/extractor").labels.entity_types == ("A", "B", "C")
    hub.files["anna/extractor"]["stale.safetensors"] = b"of an earlier version"
    push(extractor_folder, "extractor")
    assert "stale.safetensors" not in hub.files["anna/extractor"]
    assert hub.private == {"anna/extractor": False}, "what exists stays as visible as it is"


def test_a_name_that_holds_something_else_is_left_as_it_is(hub: HubServer, extractor_folder: Path) -> None:
    hub.files["anna/thesis"] = {"thesis.tex": b"precious"}
    with pytest.raises(ConfigError, match=r"anna/thesis exists at .* choose another name"):
        push(extractor_folder, "thesis")
    assert hub.files["anna/thesis"] == {"thesis.tex": b"precious"}


def test_a_new_repository_with_a_readme_alone_may_be_filled(hub: HubServer, extractor_folder: Path) -> None:
    hub.files["anna/new"] = {".gitattributes": b"", "README.md": b"# soon"}
    push(extractor_folder, "anna/new")
    assert "extractor.json" in hub.files["anna/new"]


@pytest.mark.parametrize(
    ("name", "token", "words"),
    [
        ("spe", None, "knows no user of this token; log in with `hf auth login`, or set HF_TOKEN"),
        ("spe", "hf_wrong", "knows no user of this token"),
        ("bert/spe", TOKEN, "your token may not write to bert/spe"),
        ("a/b/c", TOKEN, "a/b/c cannot be a name on the hub; give USER/NAME"),
    ],
)
def test_what_cannot_be_published_is_one_line_before_anything_is_written(
    hub: HubServer,
    checkpoints: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    token: str | None,
    words: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    made = checkpoints.make_checkpoint(tmp_path / "run")
    assert run(made.run, tmp_path / "out", "--push", name) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
    assert hub.files == {} and (name == "bert/spe") == (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_reached_is_noticed_before_the_work(
    hub: HubServer,
    checkpoints: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    made = checkpoints.make_checkpoint(tmp_path / "run")
    assert run(made.run, tmp_path / "out", "--push", "spe") == 2
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run(made.run, "--torch", tmp_path / "all.pt", "--push", "spe") == 2
    assert "--push publishes OUTPUT" in capsys.readouterr().err


def test_a_finished_fine_tuning_is_published_and_a_failure_says_how_to_repeat_it(
    hub: HubServer, extractor_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
    asked = {"output": str(extractor_folder.parent), "push": "extractor", "push_public": True}
    config = resolve([asked], FinetuneConfig)
    assert publish(config, context) == [f"published: {hub.address}/anna/extractor"]
    assert hub.private == {"anna/extractor": False}
    assert publish(resolve([{"output": asked["output"]}], FinetuneConfig), context) == []
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(ConfigError, match=r"is saved; publish it with --resume auto --push NAME"):
        publish(config, context)

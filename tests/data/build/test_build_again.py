"""Builds that were interrupted, are finished already, or meet what another left: the same bytes, or a clear refusal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shards import PIECES, contents, sentences_of

from spe_dist.data.build import make as build
from spe_dist.data.build import runs as build_runs
from spe_dist.data.build import stages as build_stages
from spe_dist.data.build.make import make_shards
from spe_dist.data.build.plan import SCRATCH_FOLDER
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.text import files as text_files
from spe_dist.data.text.vocabulary import SPECIAL_TOKENS
from spe_dist.errors import DataError, LaunchError


class Interrupted(Exception):
    pass


def interrupt(monkeypatch, module, name: str, after: int) -> list[int]:
    """Let a stage's function fail after some calls; returns the count of calls."""
    function, calls = getattr(module, name), [0]

    def failing(task):
        if calls[0] == after:
            raise Interrupted
        calls[0] += 1
        return function(task)

    monkeypatch.setattr(module, name, failing)
    return calls


@pytest.mark.parametrize("vocabulary_of", ["given", "trained"])
def test_an_interrupted_build_continues_to_the_same_bytes_without_repeating(
    tmp_path, corpus, vocabulary, small_parts, monkeypatch, vocabulary_of
):
    source = {"tokenizer": vocabulary} if vocabulary_of == "given" else {"train_vocab": 100}
    options = {**source, "block_sentences": 50, "shard_sentences": 250, "quiet": True, "processes": 1}
    parts = len(list(text_files.read_parts([Path(path) for path in corpus])))
    whole = make_shards(corpus, str(tmp_path / "whole"), **options)
    shards = sum(map(len, whole.splits.values()))
    out = str(tmp_path / "out")
    stages = ((build_runs, "make_runs"), (build_stages, "make_shard"))
    for (module, name), total in zip(stages, (parts, shards), strict=True):
        with monkeypatch.context() as patch:
            calls = interrupt(patch, module, name, after=3)
            with pytest.raises(Interrupted):
                make_shards(corpus, out, **options)
        assert not (tmp_path / "out" / "manifest.json").exists()
        with monkeypatch.context() as patch:
            calls = interrupt(patch, module, name, after=4)
            with pytest.raises(Interrupted):
                make_shards(corpus, out, **options)
        assert calls[0] == 4 and total > 7
    with monkeypatch.context() as patch:
        runs_made, shards_made = (interrupt(patch, *what, after=-1) for what in stages)
        make_shards(corpus, out, **options)
        assert runs_made[0] == 0 and shards_made[0] == shards - 7
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_build_returns_at_once_and_another_request_is_an_error(tmp_path, corpus, vocabulary, monkeypatch):
    out = str(tmp_path / "out")
    first = make_shards(corpus, out, tokenizer=vocabulary, quiet=True)
    monkeypatch.setattr(build, "make_all_runs", None)
    scratch = tmp_path / "out" / SCRATCH_FOLDER
    scratch.mkdir()  # as if it had been ended while it removed that
    assert make_shards(corpus, out, tokenizer=vocabulary, quiet=True) == first and not scratch.exists()
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"seed was 0 and is 1.*--overwrite"):
        make_shards(corpus, out, tokenizer=vocabulary, seed=1, quiet=True)
    with pytest.raises(DataError, match="input files are others"):
        make_shards(corpus[:1], out, tokenizer=vocabulary, quiet=True)
    with pytest.raises(DataError, match="tokenizer is another"):
        (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, "saws"]) + "\n")
        make_shards(corpus, out, tokenizer=vocabulary, quiet=True)
    assert Manifest.load(out) == first
    other = make_shards(corpus, out, tokenizer=vocabulary, seed=1, overwrite=True, quiet=True)
    assert other.hash() != first.hash() and ShardStore.open(out).verify().ok


def test_finished_shards_of_an_earlier_version_count_as_read_by_the_script_of_their_text(tmp_path, corpus, vocabulary):
    make_shards(corpus, str(tmp_path / "out"), tokenizer=vocabulary, quiet=True)
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())
    del content["source"]["language"], content["source"]["request"]["settings"]["language"]
    path.write_text(json.dumps(content))
    old = Manifest.load(path)
    assert make_shards(corpus, str(tmp_path / "out"), tokenizer=vocabulary, quiet=True) == old
    with pytest.raises(DataError, match="language was 'auto' and is 'de'"):
        make_shards(corpus, str(tmp_path / "out"), tokenizer=vocabulary, language="de", quiet=True)


def test_a_build_in_the_place_of_another_uses_its_own_vocabulary(tmp_path, corpus, vocabulary):
    out = tmp_path / "out"
    make_shards(corpus, str(out), tokenizer=vocabulary, processes=1, quiet=True)
    before = sentences_of(out, "train")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *PIECES[:4:-1]]) + "\n")
    make_shards(corpus, str(out), tokenizer=vocabulary, processes=1, overwrite=True, quiet=True)
    assert sentences_of(out, "train") == before


def test_an_unfinished_build_of_changed_inputs_is_an_error_until_overwritten(tmp_path, corpus, vocabulary, monkeypatch):
    out = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        interrupt(patch, build_stages, "make_shard", after=0)
        with pytest.raises(Interrupted):
            make_shards(corpus, out, tokenizer=vocabulary, quiet=True)
    os.utime(corpus[0], (1, 1))
    with pytest.raises(DataError, match=r"unfinished.*has changed since.*--overwrite"):
        make_shards(corpus, out, tokenizer=vocabulary, quiet=True)
    make_shards(corpus, out, tokenizer=vocabulary, overwrite=True, quiet=True)
    assert ShardStore.open(out).verify().ok


def test_shards_that_no_manifest_knows_are_not_mixed_with_new_ones(tmp_path, corpus, vocabulary):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-00099.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"train-00099\.tar but no manifest"):
        make_shards(corpus, str(tmp_path / "out"), tokenizer=vocabulary, quiet=True)


def kill_itself(task):
    os.kill(os.getpid(), 9)


@pytest.mark.distributed
def test_a_killed_worker_ends_the_build_with_the_remedy_and_the_next_run_continues(
    tmp_path, corpus, vocabulary, small_parts, monkeypatch
):
    out = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(build_stages, "make_shard", kill_itself)
        with pytest.raises(LaunchError, match="fewer processes"):
            make_shards(corpus, out, tokenizer=vocabulary, processes=2, quiet=True)
    with monkeypatch.context() as patch:
        runs = interrupt(patch, build_runs, "make_runs", -1)
        make_shards(corpus, out, tokenizer=vocabulary, processes=2, quiet=True)
        assert runs[0] == 0
    assert ShardStore.open(out).verify().ok

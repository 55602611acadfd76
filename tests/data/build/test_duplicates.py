"""Sentences that stand in the text more than once are counted and dropped, however the work is divided."""

from __future__ import annotations

import random

import numpy as np
import pytest
from shards import contents, numbered_sentences, sentences_of

from spe_dist.data.build import duplicates as build_duplicates
from spe_dist.data.build.duplicates import HASHES, exact_hash, find_repeated, text_hash
from spe_dist.data.build.make import make_shards
from spe_dist.data.build.report import EXACT_DUPLICATES, KEPT, NEAR_DUPLICATES
from spe_dist.errors import ConfigError

OPTIONS = {"block_sentences": 50, "shard_sentences": 250, "held_out": 0.1, "words": "spaces", "quiet": True}


def write(folder, lines: list[str]) -> list[str]:
    half = len(lines) // 2
    (folder / "a.txt").write_text("\n".join(lines[:half]) + "\n")
    (folder / "b.txt").write_text("\n".join(lines[half:]) + "\n")
    return [str(folder / "a.txt"), str(folder / "b.txt")]


@pytest.fixture
def repeated(tmp_path) -> tuple[list[str], list[str], int, int]:
    """(files, different sentences, exact duplicates, near duplicates), all over the text."""
    different = numbered_sentences(600)
    rng = random.Random(1)
    exact = rng.choices(different, k=300)
    near = [line.replace("saw", "SAW").replace(" .", ".") for line in rng.sample(different, 100)]
    later = [*exact, *near]
    rng.shuffle(later)
    return write(tmp_path, [*different, *later]), different, len(exact), len(near)


def test_the_first_of_equal_sentences_stays_and_the_rest_is_counted(tmp_path, repeated, vocabulary, small_parts):
    files, different, exact, near = repeated
    manifest = make_shards(files, str(tmp_path / "out"), tokenizer=vocabulary, **OPTIONS)
    found = sentences_of(tmp_path / "out", "train") + sentences_of(tmp_path / "out", "held_out")
    assert len(found) == len(different) + near and set(different) <= set(found)
    assert manifest.skipped == {EXACT_DUPLICATES: exact} and manifest.noticed[f"{NEAR_DUPLICATES}{KEPT}"] == near


def test_near_ones_are_dropped_and_all_are_kept_where_asked_for(tmp_path, repeated, vocabulary, small_parts):
    files, different, exact, near = repeated
    manifest = make_shards(files, str(tmp_path / "near"), tokenizer=vocabulary, drop_duplicates="near", **OPTIONS)
    found = sentences_of(tmp_path / "near", "train") + sentences_of(tmp_path / "near", "held_out")
    assert sorted(found) == sorted(different)
    assert manifest.skipped == {EXACT_DUPLICATES: exact, NEAR_DUPLICATES: near}
    manifest = make_shards(files, str(tmp_path / "all"), tokenizer=vocabulary, drop_duplicates="none", **OPTIONS)
    assert manifest.n_sentences("train") + manifest.n_sentences("held_out") == len(different) + exact + near
    assert not manifest.skipped and manifest.noticed[f"{EXACT_DUPLICATES}{KEPT}"] == exact
    with pytest.raises(ConfigError, match="drop_duplicates='all' is unknown"):
        make_shards(files, str(tmp_path / "x"), tokenizer=vocabulary, drop_duplicates="all")


@pytest.mark.parametrize("drop", ["exact", "near"])
def test_bytes_depend_on_neither_processes_nor_ranges_nor_tasks(
    tmp_path, repeated, vocabulary, small_parts, monkeypatch, drop
):
    pytest.importorskip("datatrove")
    from spe_dist.data.build.executors import make_shards_divided

    files, options = repeated[0], {"tokenizer": vocabulary, "drop_duplicates": drop, **OPTIONS}
    make_shards(files, str(tmp_path / "whole"), **options)
    monkeypatch.setattr(build_duplicates, "RANGE_SENTENCES", 100)
    make_shards(files, str(tmp_path / "ranges"), processes=2, **options)
    make_shards_divided(files, str(tmp_path / "divided"), executor="local", tasks=3, processes=2, **options)
    assert contents(tmp_path / "whole") == contents(tmp_path / "ranges") == contents(tmp_path / "divided")


def test_without_duplicates_nothing_changes_but_the_setting(tmp_path, corpus, vocabulary):
    for drop in ("none", "near"):
        make_shards(corpus, str(tmp_path / drop), tokenizer=vocabulary, drop_duplicates=drop, quiet=True)
    none, near = contents(tmp_path / "none"), contents(tmp_path / "near")
    none.pop("manifest.json"), near.pop("manifest.json")
    assert none == near


def test_repeated_sentences_are_found_as_a_plain_search_finds_them():
    rng = random.Random(0)
    texts = [f"{rng.choice('aAbB')} {rng.choice('xX')}{' ' * rng.randrange(1, 3)}y" for _ in range(300)]
    hashes_N = np.zeros(len(texts), HASHES)
    hashes_N["text"] = [text_hash(text) for text in texts]
    hashes_N["exact"] = [exact_hash(text) for text in texts]
    is_exact_N, is_near_N = find_repeated(hashes_N)
    normal = ["".join(text.lower().split()) for text in texts]
    assert is_exact_N.tolist() == [text in texts[:i] for i, text in enumerate(texts)]
    assert is_near_N.tolist() == [normal[i] in normal[:i] and texts[i] not in texts[:i] for i in range(len(texts))]
    assert not find_repeated(hashes_N[:1])[0].any() and len(find_repeated(hashes_N[:0])[0]) == 0


def test_the_hash_of_a_text_is_that_of_its_letters():
    assert text_hash("A b.") == text_hash(" a\tB .") == text_hash("\uff21b.") != text_hash("a c.")
    assert text_hash("Stra\u00dfe 1") == text_hash("STRASSE 1")

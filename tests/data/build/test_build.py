"""From text to shards: nothing lost, nothing twice, the same bytes however the work is divided."""

from __future__ import annotations

import json
import lzma
import os
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from project import SHARED
from shards import contents, numbered_sentences, sentences_of

from spe_dist.data.build import duplicates
from spe_dist.data.build.make import make_shards
from spe_dist.data.build.report import TOO_LONG, TOO_SHORT, UNKNOWN_WORDS, WITHOUT_PIECES
from spe_dist.data.build.runs import BINS, bin_sizes, is_held_out, read_run, write_run
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.text import vocabulary_training
from spe_dist.data.text.lines import BLANK, UNDECODABLE
from spe_dist.data.text.vocabulary import SPECIAL_TOKENS
from spe_dist.errors import ConfigError, DataError

TEXT_FOLDER = SHARED / "data" / "text"


def test_every_sentence_is_in_one_split_once_and_the_order_is_shuffled(tmp_path, corpus, vocabulary, small_parts):
    manifest = make_shards(
        corpus,
        str(tmp_path / "out"),
        tokenizer=vocabulary,
        held_out=0.1,
        block_sentences=100,
        shard_sentences=500,
        quiet=True,
    )
    train, held_out = sentences_of(tmp_path / "out", "train"), sentences_of(tmp_path / "out", "held_out")
    expected = [line for line in numbered_sentences(2_000) if " 500 " not in line]
    assert sorted(train + held_out) == sorted(expected)
    assert held_out and all(is_held_out(line, 0.1) for line in held_out) and not any(is_held_out(s, 0.1) for s in train)
    numbers = np.array([int(line.split()[2]) for line in train])
    assert abs(np.corrcoef(numbers, np.arange(len(numbers)))[0, 1]) < 0.1
    assert len(manifest.splits["train"]) == 4 and {s.name for s in manifest.splits["held_out"]} == {
        "held_out-00000.tar"
    }
    sizes = [block.sentences for shard in manifest.splits["train"] for block in shard.blocks]
    assert max(sizes) <= 150 and min(sizes) >= 67
    members = [block.member for shard in manifest.splits["train"] for block in shard.blocks]
    assert members == [f"{i:08d}.npz" for i in range(len(members))]
    assert manifest.skipped == {BLANK: 1} and ShardStore.open(str(tmp_path / "out")).verify().ok
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path, corpus, vocabulary, small_parts):
    for processes in (1, 2, 3):
        make_shards(
            corpus,
            str(tmp_path / str(processes)),
            tokenizer=vocabulary,
            held_out=0.05,
            shard_sentences=1_000,
            processes=processes,
            quiet=True,
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_the_seed_changes_the_order_and_not_what_is_held_out(tmp_path, corpus, vocabulary):
    for seed in (0, 1):
        make_shards(corpus, str(tmp_path / str(seed)), tokenizer=vocabulary, held_out=0.1, seed=seed, quiet=True)
    first, second = (sentences_of(tmp_path / str(seed), "train") for seed in (0, 1))
    assert first != second and sorted(first) == sorted(second)


def test_duplicates_stay_together_whatever_their_case_and_spaces():
    for line in numbered_sentences(300):
        share = {is_held_out(form, 0.3) for form in (line, line.upper(), line.replace(" .", "."), f"  {line}")}
        assert len(share) == 1
    held_out = sum(is_held_out(line, 0.005) for line in numbered_sentences(40_000))
    assert 200 - 60 < held_out < 200 + 60


def test_what_cannot_be_kept_is_counted_by_reason(tmp_path, vocabulary):
    good = numbered_sentences(20)
    lines = [*good, "ada saw", "", "ada saw " + "7" * 80, "ada \u200b \x07 saw .", "ada saw \x07", "ada saw [MASK] ."]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode() + b"\n\xff\xff bad line\n")
    manifest = make_shards(
        [str(tmp_path / "a.txt")],
        str(tmp_path / "out"),
        tokenizer=vocabulary,
        words="spaces",
        max_pieces=60,
        held_out=0,
        quiet=True,
    )
    assert manifest.n_sentences("train") == 22 and manifest.n_sentences("held_out") == 0
    assert manifest.skipped == {TOO_SHORT: 2, BLANK: 1, TOO_LONG: 1, UNDECODABLE: 1}
    assert manifest.noticed[WITHOUT_PIECES] == 3 and manifest.noticed[UNKNOWN_WORDS] == 1
    store = ShardStore.open(str(tmp_path / "out"))
    assert manifest.mask_id not in store.block(0).piece_ids_T and store.verify().ok


def test_fifty_sentences_make_one_block_and_an_empty_held_out_split_is_said(tmp_path, vocabulary, capsys):
    lines = [line for line in numbered_sentences(80) if not is_held_out(line, 0.005)][:50]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    manifest = make_shards([str(tmp_path / "a.txt")], str(tmp_path / "out"), tokenizer=vocabulary)
    assert [len(shard.blocks) for shard in manifest.splits["train"]] == [1] and not manifest.splits["held_out"]
    shown = capsys.readouterr()
    assert "no sentence was held out" in shown.err
    assert "words: spaces" in shown.out and "unit: sentences" in shown.out and "held-out" in shown.out
    held_out = ShardStore.open(str(tmp_path / "out"), "held_out")
    assert held_out.n_sentences == 0 and held_out.first_sentence_id == 50 and len(held_out.block_sentences) == 0


def test_much_that_is_skipped_is_a_warning_with_the_remedy(tmp_path, vocabulary, capsys):
    def build(name: str, lines: list[str], **settings: object) -> str:
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
        make_shards(
            [str(tmp_path / f"{name}.txt")],
            str(tmp_path / name),
            tokenizer=vocabulary,
            unit="sentences",
            quiet=True,
            **settings,
        )
        return capsys.readouterr().err

    lines = numbered_sentences(200)
    few, many = [f"title {i}" for i in range(40)], [f"title {i}" for i in range(60)]
    assert "skipped" not in build("few", lines + few)
    shown = build("many", lines + many, words="spaces")
    assert "warning: 23% of the text was skipped: 60 of 260 sentences and lines" in shown
    assert "most of them sentences under 3 words (60); are lines titles" in shown and "--language" in shown
    shown = build("long", lines, max_pieces=9)
    assert "sentences over the limit of pieces" in shown and "raise --max_pieces" in shown
    with pytest.raises(DataError, match=r"no sentence to keep \(60 sentences under 3 words\).*--language"):
        build("titles", many, words="spaces")


def test_a_chinese_file_keeps_its_sentences_and_names_its_language(tmp_path, capsys):
    lines = [f"这座城市位于河边。它由商人在{1000 + i}年建立。" for i in range(300)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    characters = sorted(set("".join(lines)) - set("0123456789"))
    pieces = [*SPECIAL_TOKENS, *characters, *"0123456789", *(f"##{d}" for d in "0123456789")]
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    options = {"tokenizer": str(tmp_path / "vocab.txt"), "drop_duplicates": "none"}
    manifest = make_shards([str(tmp_path / "a.txt")], str(tmp_path / "out"), **options)
    shown = capsys.readouterr()
    assert sum(manifest.n_sentences(split) for split in manifest.splits) == 600 and not manifest.skipped
    assert (
        "skipped" not in shown.err and "language: auto (by the script of each text in a sample: zh 100%)" in shown.out
    )
    assert manifest.source["language"] == manifest.source["request"]["settings"]["language"] == "auto"
    assert "这 座 城 市 位 于 河 边 。" in sentences_of(tmp_path / "out", "train")
    manifest = make_shards([str(tmp_path / "a.txt")], str(tmp_path / "zh"), language="zh", quiet=True, **options)
    assert manifest.source["language"] == manifest.language == "zh"
    assert contents(tmp_path / "zh")["train-00000.tar"] == contents(tmp_path / "out")["train-00000.tar"]
    with pytest.raises(ConfigError, match="language='cn' is unknown"):
        make_shards([str(tmp_path / "a.txt")], str(tmp_path / "cn"), language="cn", **options)


def test_a_vocabulary_can_be_trained_on_the_corpus_and_lies_beside_the_shards(tmp_path, corpus, small_parts):
    for processes in (1, 2):
        out = tmp_path / str(processes)
        manifest = make_shards(corpus, str(out), train_vocab=120, processes=processes, quiet=True)
        assert manifest.vocabulary_size <= 120 and manifest.tokenizer.name == "trained"
        assert {"ada", "saw", "##1"} <= set((out / "tokenizer" / "vocab.txt").read_text().split())
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize("drop", ["exact", "near", "none"])
def test_a_vocabulary_is_trained_on_the_sentences_that_are_kept(tmp_path, small_parts, monkeypatch, drop):
    counted = []
    train = vocabulary_training.train_vocabulary
    monkeypatch.setattr(vocabulary_training, "train_vocabulary", lambda *a: counted.append(a[0]) or train(*a))
    monkeypatch.setattr(duplicates, "RANGE_SENTENCES", 50)
    lines = [f"{'Ada' if i % 3 else 'ADA'} saw number{i % 40} there ." for i in range(400)]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    options = {"train_vocab": 200, "words": "spaces", "held_out": 0, "drop_duplicates": drop, "quiet": True}
    manifest = make_shards([str(tmp_path / "a.txt")], str(tmp_path / "out"), **options)
    first = {}
    for line in lines:
        first.setdefault(line.lower() if drop == "near" else line, line)
    kept = lines if drop == "none" else first.values()
    assert counted == [Counter(word for line in kept for word in line.split())]
    assert manifest.n_sentences("train") == len(kept)


def test_unusable_requests_are_errors_before_any_work(tmp_path, corpus, vocabulary):
    out = str(tmp_path / "out")
    for options, message in (
        ({}, "tokenizer .* or train_vocab"),
        ({"tokenizer": vocabulary, "train_vocab": 100}, "one of the two"),
        ({"tokenizer": vocabulary, "held_out": 1.0}, "held_out=1.0"),
        ({"tokenizer": vocabulary, "max_pieces": 3}, "max_pieces=3"),
        ({"tokenizer": vocabulary, "max_pieces": 40_000}, "32,767"),
        ({"tokenizer": vocabulary, "block_sentences": 0}, "block_sentences=0"),
        ({"tokenizer": vocabulary, "processes": 0}, "processes=0"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_shards(corpus, out, **options)
    with pytest.raises(DataError, match="words='spaces' does not fit"):
        (tmp_path / "raw.txt").write_text("Well, this is raw, untokenised text.\n" * 50)
        make_shards([str(tmp_path / "raw.txt")], out, tokenizer=vocabulary, words="spaces", quiet=True)
    assert not list((tmp_path / "out").glob("[!.]*"))
    with pytest.raises(DataError, match="no sentence to keep"):
        (tmp_path / "none.txt").write_text("too short\n")
        make_shards([str(tmp_path / "none.txt")], out, tokenizer=vocabulary, quiet=True)


def test_files_of_a_folder_that_are_passed_over_for_their_names_are_told(tmp_path, corpus, vocabulary, capsys):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a.txt", "news.2007.en", ".hidden"):
        (folder / name).write_text("\n".join(numbered_sentences(50)))
    for _ in range(2):  # the shards that lie inside by then are none
        make_shards([str(folder)], str(folder / "shards"), tokenizer=vocabulary, quiet=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(told) == 2 and all(
        "left out 1 file of the input folders" in line and "(news.2007.en)" in line for line in told
    )


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no /dev/fd")
def test_a_pipe_whose_first_lines_a_look_would_lose_is_refused(tmp_path, vocabulary):
    reader, writer = os.pipe()
    os.write(writer, "".join(f"{line}\n" for line in numbered_sentences(100)).encode())
    os.close(writer)
    try:
        with pytest.raises(DataError, match=f"/dev/fd/{reader} is a pipe.*write it to a file"):
            make_shards([f"/dev/fd/{reader}"], str(tmp_path / "out"), tokenizer=vocabulary, quiet=True)
    finally:
        os.close(reader)


def test_runs_give_back_every_range_of_keys_in_order(tmp_path):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, 500, dtype=np.uint64)
    texts = [f"text {i} é" * (i % 3) for i in range(500)]
    write_run(tmp_path / "run", keys, texts)
    sizes = bin_sizes(tmp_path / "run")
    assert sizes.sum() == 500 and len(sizes) == BINS
    order = np.argsort(keys)
    for cuts in ([0, BINS], [0, 1, 700, 701, 2_000, BINS]):
        found = [read_run(tmp_path / "run", a, b) for a, b in pairwise(cuts)]
        assert np.array_equal(np.concatenate([keys for keys, _ in found]), keys[order])
        assert [text for _, part in found for text in part] == [texts[i] for i in order]
        assert [len(part) for _, part in found] == [sizes[a:b].sum() for a, b in pairwise(cuts)]
    write_run(tmp_path / "empty", keys[:0], [])
    assert read_run(tmp_path / "empty", 0, BINS)[1] == []


@pytest.mark.skipif(not TEXT_FOLDER.is_dir(), reason="the shared text is not here")
def test_real_raw_text_keeps_every_sentence_and_no_comma_inside_a_word(tmp_path):
    pytest.importorskip("spacy")
    vocabulary = TEXT_FOLDER.parent / "vocab" / "bert-base-cased-vocab.txt"
    with lzma.open(TEXT_FOLDER / "wiki_simple.txt.xz", "rt", encoding="utf-8") as file:
        lines = [line for _, line in zip(range(4_000), file, strict=False)]
    (tmp_path / "wiki.jsonl").write_text("".join(json.dumps({"text": line.strip()}) + "\n" for line in lines))
    manifest = make_shards([str(tmp_path / "wiki.jsonl")], str(tmp_path / "out"), tokenizer=str(vocabulary), quiet=True)
    kept = sum(manifest.n_sentences(split) for split in manifest.splits)
    assert kept + sum(manifest.skipped.values()) == len(lines) and manifest.source["words"] == "tokenizer"
    words = Counter(word for line in sentences_of(tmp_path / "out", "train") for word in line.split())
    attached = sum(count for word, count in words.items() if word.endswith(",") and len(word) > 1)
    assert words[","] > 1_000 and attached == 0
    assert manifest.vocabulary_size == 28_996 and not manifest.tokenizer.do_lower_case


@pytest.mark.parametrize(("marked", "warning"), [(2, None), (8, "warning: 8 of 200 sentences look like markup")])
def test_much_markup_is_a_warning_by_share_of_the_sentences_whatever_the_records(
    tmp_path, vocabulary, capsys, marked, warning
):
    lines = [f"{line[:-2]} &amp; {line[-1]}" if i < marked else line for i, line in enumerate(numbered_sentences(200))]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "\n\n".join(lines)}) + "\n")  # one record
    make_shards(
        [str(tmp_path / "a.jsonl")], str(tmp_path / "out"), tokenizer=vocabulary, unit="documents", held_out=0.1
    )
    shown = capsys.readouterr().err
    assert warning in shown if warning else "look like markup" not in shown

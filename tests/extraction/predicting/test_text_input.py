"""Users' own text: sentences, words and exact offsets, whatever the file holds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tracemalloc
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from texts import check_offsets, read

from spe_dist.data.text.lines import UNDECODABLE, Skips
from spe_dist.errors import DataError
from spe_dist.extraction.predicting.inputs import read_inputs
from spe_dist.extraction.predicting.text_input import sentences_of, sentences_of_text

ODD = "A \x00\x01b\x0b\x0cc \U0001f600\U0001f1e9\U0001f1ea e\u0301\u2028 \x85x \u200b\u202ey \ufeffz. Next\r\none."
ODD_CHARACTERS = st.sampled_from("aB .!?,;\n\r\t\"'()\x00\x1c\x85\u2028\u00a0\u200b\ufeff\u0301\U0001f600é0-")
ODD_TEXT = st.text(st.one_of(ODD_CHARACTERS, st.characters(exclude_categories=["Cs"])), max_size=80)


@given(ODD_TEXT)
@example(ODD)
@settings(max_examples=150, deadline=None)
def test_words_of_any_text_stand_where_their_offsets_say(tmp_path_factory, text):
    parts = [(start, sentence) for start, sentence in sentences_of_text(text)]
    position = 0
    for start, sentence in parts:
        assert text[start : start + len(sentence.text)] == sentence.text
        for word, (a, b) in zip(sentence.words, sentence.char_spans, strict=True):
            assert sentence.text[a:b] == word != ""
            assert not text[position : start + a].strip()
            position = start + b
    assert not text[position:].strip()


@given(ODD_TEXT, st.sampled_from(["auto", "wrapped", "separate"]), st.booleans())
@example(ODD, "auto", False)
@settings(max_examples=100, deadline=None)
def test_offsets_count_characters_of_the_whole_file(tmp_path_factory, text, lines, tokenised):
    text = text.removeprefix("\ufeff")
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    check_offsets(read(path, format="text", lines=lines, tokenised=tokenised), text)


def test_tokenised_text_of_several_lines_counts_its_line_breaks():
    found = [
        (start, sentence.words) for start, sentence in sentences_of_text("a b\n\n \U0001f600 c\nd", tokenised=True)
    ]
    assert found == [(0, ("a", "b")), (6, ("\U0001f600", "c")), (10, ("d",))]


def test_wrapped_lines_are_joined_and_blank_lines_part_documents(tmp_path):
    text = (
        "A Heading\n\nThe first sentence of this text goes on over the end of\nthe line. A second one ends at Mr.\n"
        "Smith of the city, who was never seen here\r\nagain.\n\n\nAnother document begins with this one\nhere.\n"
    )
    path = tmp_path / "wrapped.txt"
    path.write_bytes(text.encode())
    located = read(path)
    check_offsets(located, text)
    assert [" ".join(sentence.words[:2]) for _, sentence in located] == [
        "A Heading",
        "The first",
        "A second",
        "Another document",
    ]
    assert [(place.document, place.sentence, place.line) for place, _ in located] == [
        (0, 0, 1),
        (1, 0, 3),
        (1, 1, 4),
        (2, 0, 9),
    ]


def test_lines_that_are_sentences_are_not_joined_even_without_full_stops(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("Parliament votes on the budget of the coming year\nStocks fall in Tokyo after the news\n" * 5)
    assert len(read(path)) == 10
    assert len(read(path, lines="wrapped")) < 10


def test_tokenised_text_is_one_sentence_a_line_with_words_between_spaces(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text("Mr. Smith , he said . Did  n't\n\nEnd\n")
    located = read(path, tokenised=True)
    assert [sentence.words for _, sentence in located] == [
        ("Mr.", "Smith", ",", "he", "said", ".", "Did", "n't"),
        ("End",),
    ]
    check_offsets(located, path.read_text())


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress, zstandard.compress])
def test_compressed_text_reads_as_the_plain_one(tmp_path, compress):
    path = tmp_path / "text"
    path.write_bytes(compress(b"One sentence. And two.\n"))
    assert [sentence.text for _, sentence in read(path)] == ["One sentence.", "And two."]


def test_bad_lines_are_counted_and_left_out_where_that_is_asked(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "Good."}\n{"text": \n{"body": 1}\n{"text": "\xff"}\n\n{"text": "Also good."}\n')
    skips = Skips()
    assert [sentence.text for _, sentence in read(path, skips, skip_bad=True)] == ["Good.", "Also good."]
    assert sum(skips.counts.values()) == 4 and "bad.jsonl, line" in skips.first_bad
    path.write_bytes(b"One here.\nBad \xe9 line.\nTwo here.\n")
    skips = Skips()
    located = read(path, skips, format="text", skip_bad=True)
    assert [sentence.text for _, sentence in located] == ["One here.", "Two here."]
    assert skips.counts == {UNDECODABLE: 1} and located[1].place.start == len("One here.\nBad \xe9 line.\n")


def test_a_missing_file_and_standard_input_given_twice_are_errors(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="twice"):
        list(read_inputs(["-", "-"]))


def test_utf16_and_damaged_files_are_errors(tmp_path):
    (tmp_path / "wide.txt").write_bytes("text".encode("utf-16"))
    with pytest.raises(DataError, match=r"wide\.txt.*UTF-16"):
        read(tmp_path / "wide.txt")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"One sentence. " * 1000)[:-20])
    with pytest.raises(DataError, match=r"cut\.gz.*cut short"):
        read(tmp_path / "cut.gz")


def test_text_without_any_full_stop_is_cut_and_nothing_is_lost():
    text = "word " * 4500
    found = list(sentences_of(text))
    assert [len(sentence.words) for _, sentence in found] == [2000, 2000, 500]
    assert all(text[start:].startswith(sentence.text) for start, sentence in found)
    assert [start for start, _ in found] == [0, 10_000, 20_000]


def test_a_very_long_line_is_read_and_one_beyond_all_limits_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "long.txt"
    path.write_text("word " * 100_000 + "end. " + "x" * 50_000)
    located = read(path)
    assert sum(len(sentence.words) for _, sentence in located) == 100_003
    check_offsets(located, path.read_text())
    monkeypatch.setattr("spe_dist.data.text.lines.MAX_LINE_BYTES", 10_000)
    with pytest.raises(DataError, match=r"long\.txt has a line of more than"):
        read(path)


def test_documents_are_counted_over_all_inputs(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    (tmp_path / "b.jsonl").write_text('{"text": "Three."}\n')
    located = list(read_inputs([str(tmp_path)]))
    assert [(Path(place.file).name, place.document) for place, _ in located] == [
        ("a.txt", 0),
        ("a.txt", 1),
        ("b.jsonl", 2),
    ]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_standard_input_is_read_from_a_pipe_also_compressed(monkeypatch, compress):
    reads, writes = os.pipe()
    os.write(writes, compress(b"One here. Two.\n"))
    os.close(writes)
    with open(reads, "rb") as pipe:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=pipe))
        located = list(read_inputs(["-"]))
    assert [(place.file, place.start, sentence.text) for place, sentence in located] == [
        ("-", 0, "One here."),
        ("-", 10, "Two."),
    ]


def test_reading_holds_no_more_of_a_file_than_it_needs(tmp_path):
    path = tmp_path / "big.txt"
    path.write_text("This is one more sentence of a long text.\n" * 200_000)
    sentences = read_inputs([str(path)])
    assert len(list(islice(sentences, 1000))) == 1000
    tracemalloc.start()
    assert sum(1 for _ in islice(sentences, 3000)) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6, "the file has 8.4 MB and its lines more than twice that"

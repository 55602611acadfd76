"""Reading text: files of any kind, parts, units, formats, bad lines."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from spe_dist.data.text.documents import (
    BAD_JSON,
    BLANK,
    NO_TEXT_FIELD,
    UNDECODABLE,
    Skips,
    TextReader,
    check_bad_lines,
    choose_unit,
    join_wrapped_lines,
    take_sample,
)
from spe_dist.data.text.files import find_files, read_chunks, read_parts
from spe_dist.errors import ConfigError, DataError

zstandard = pytest.importorskip("zstandard")
LINES = [f"This is sentence number {i} ." for i in range(200)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def write_as(path: Path, data: bytes) -> Path:
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(compress.get(path.suffix, bytes)(data))
    return path


def sentences(
    files: list[Path], unit: str = "sentences", part_bytes: int = 1 << 20, **options
) -> tuple[list[str], Skips]:
    sample = take_sample(files, **options)
    reader = TextReader(files, sample.is_jsonl, unit, options.get("text_field", "text"))
    skips = Skips()
    break_at = b"\n\n" if unit == "documents" else b"\n"
    found = [s for part in read_parts(files, break_at, part_bytes) for s in reader.sentences(part, skips)]
    return found, skips


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_every_compression_gives_the_same_lines(tmp_path, suffix):
    assert sentences([write_as(tmp_path / f"a.txt{suffix}", TEXT)])[0] == LINES


def test_a_compressed_file_is_known_by_its_bytes_whatever_its_name(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes(gzip.compress(TEXT))
    assert sentences([path])[0] == LINES


def test_a_zstd_file_of_several_frames_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.txt.zst"
    compress = zstandard.ZstdCompressor().compress
    path.write_bytes(compress(TEXT[:1000]) + compress(TEXT[1000:]))
    assert b"".join(chunk for chunk, _ in read_chunks(path)) == TEXT


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix):
    path = write_as(tmp_path / f"cut.txt{suffix}", TEXT * 50)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"cut.txt{suffix}.*cut short"):
        list(read_chunks(path))


def test_utf16_is_refused_with_the_remedy_and_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "wide.txt").write_bytes("wide text".encode("utf-16"))
    with pytest.raises(DataError, match="iconv"):
        list(read_chunks(tmp_path / "wide.txt"))
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbf" + TEXT)
    assert sentences([tmp_path / "mark.txt"])[0] == LINES


def test_folders_and_globs_give_their_text_files_once_in_order(tmp_path):
    for name in ("b.txt", "a.jsonl", "deep/c.txt.gz", "deep/wiki_00", ".hidden.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x\n")
    names = [str(path.relative_to(tmp_path)) for path in find_files([str(tmp_path), str(tmp_path / "*.txt")])]
    assert names == ["a.jsonl", "b.txt", "deep/c.txt.gz", "deep/wiki_00"]


def test_a_file_is_read_once_however_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"x\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    monkeypatch.chdir(tmp_path)
    assert find_files(["a.txt", str(tmp_path / "a.txt"), str(tmp_path)]) == [Path("a.txt")]


def test_an_output_inside_an_input_folder_is_no_input(tmp_path):
    for name in ("a.txt", "shards/tokenizer/vocab.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x\n")
    assert find_files([str(tmp_path)], leave_out=tmp_path / "shards") == [tmp_path / "a.txt"]


def test_an_input_that_gives_no_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"missing\.txt does not exist"):
        find_files([str(tmp_path / "missing.txt")])
    with pytest.raises(DataError, match="holds no text file"):
        find_files([str(tmp_path)])


@pytest.mark.parametrize("part_bytes", [1, 100, 999, 1 << 20])
def test_parts_of_any_size_hold_every_line_once_in_order(tmp_path, part_bytes):
    files = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "empty.txt", tmp_path / "c.txt"]
    for i, path in enumerate(files):
        path.write_bytes(b"" if path.stem == "empty" else b"\n".join(f"{i} {line}".encode() for line in LINES))
    found = [
        s for part in read_parts(files, part_bytes=part_bytes) for seg in part.segments for s in seg.data.splitlines()
    ]
    assert found == [f"{i} {line}".encode() for i in (0, 1, 3) for line in LINES]
    starts = [(seg.file, seg.first_line) for part in read_parts(files, part_bytes=part_bytes) for seg in part.segments]
    lines = [seg.data.splitlines()[0] for part in read_parts(files, part_bytes=part_bytes) for seg in part.segments]
    assert [f"{file} {LINES[line - 1]}".encode() for file, line in starts] == lines


def test_json_lines_are_recognised_and_bad_ones_counted_by_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        json.dumps({"text": "One two three."}),
        "{broken",
        json.dumps({"body": "x"}),
        "",
        json.dumps({"text": "A\nB"}),
    ]
    path.write_text("\n".join(rows))
    found, skips = sentences([path])
    assert found == ["One two three.", "A", "B"]
    assert (skips.counts[BAD_JSON], skips.counts[NO_TEXT_FIELD], skips.counts[BLANK], skips.lines) == (1, 1, 1, 5)
    assert skips.first_bad is not None and "a.jsonl, line 2" in skips.first_bad


def test_another_text_field_can_be_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\n".join(json.dumps({"body": line}) for line in LINES))
    assert sentences([path], text_field="body")[0] == LINES


def test_undecodable_lines_are_counted_and_fatal_beyond_the_limit(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT + b"\xff\xfe bad line\n" * 6)
    found, skips = sentences([path])
    assert found == LINES and skips.counts[UNDECODABLE] == 6
    check_bad_lines(skips, max_bad_share=0.05)
    with pytest.raises(DataError, match=r"6 of 206 lines .*a\.txt, line 201.*max_bad_share"):
        check_bad_lines(skips, max_bad_share=0.01)


def test_the_unit_is_chosen_by_sentence_ends_inside_lines():
    one = ["He came home.", "Mr. A. B. Smith saw the U.S. team .", "It rained ."]
    assert choose_unit("auto", one)[0] == "sentences"
    assert choose_unit("auto", ["He came home. She left. They met again."] * 3)[0] == "documents"
    wrapped = ["the first line of a paragraph which is wrapped", "by hand. Its sentences go on over lines and"] * 9
    assert choose_unit("auto", wrapped)[0] == "documents"
    assert choose_unit("sentences", wrapped)[0] == "sentences"
    with pytest.raises(ConfigError, match="unit='lines'"):
        choose_unit("lines", one)


def test_documents_are_split_into_sentences_over_wrapped_lines_but_not_over_headings(tmp_path):
    pytest.importorskip("spacy")
    path = tmp_path / "a.txt"
    path.write_text(
        "A Heading\nDr. Smith came home to the small town where he\nwas born. It rained!\n\n"
        'A second paragraph. "Why did it rain?"\n'
    )
    found, _ = sentences([path], unit="documents")
    assert found[:3] == ["A Heading", "Dr. Smith came home to the small town where he was born.", "It rained!"]
    assert found[3:] == ["A second paragraph.", '"Why did it rain?"']


def test_a_short_line_ends_a_paragraph_and_a_long_open_one_goes_on():
    long = "x" * 50
    assert list(join_wrapped_lines(["short", long, "end.", f"{long}.", "rest"])) == [
        "short",
        f"{long} end.",
        f"{long}.",
        "rest",
    ]


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_line_ends_of_other_systems_cut_documents_at_the_same_places(tmp_path, end, monkeypatch):
    text = b"\n\n".join(b"one line\nand another of paragraph %d" % i for i in range(300))
    (tmp_path / "unix.txt").write_bytes(text)
    (tmp_path / "other.txt").write_bytes(text.replace(b"\n", end))
    monkeypatch.setattr("spe_dist.data.text.files._READ_BYTES", 101)  # line ends fall on the borders of reads
    unix, other = (
        [segment.data for part in read_parts([tmp_path / name], b"\n\n", 1000) for segment in part.segments]
        for name in ("unix.txt", "other.txt")
    )
    assert b"".join(unix) == b"".join(other)
    assert all(part.endswith(b"\n\n") for part in unix[:-1] + other[:-1])


JOINABLE = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("name", JOINABLE)
def test_a_further_stream_that_is_damaged_is_an_error_and_what_stands_before_is_read(tmp_path, name):
    path, stream = tmp_path / f"two.{name}", JOINABLE[name](TEXT)
    for damaged in (b"\x01" + stream[1:], b"junk", stream[:9] + bytes(8) + stream[17:]):
        path.write_bytes(stream + damaged)
        found = b""
        with pytest.raises(DataError, match=rf"two\.{name}.*(damaged|cut short).*fetch it again"):
            for chunk, _ in read_chunks(path):
                found += chunk
        assert found.startswith(TEXT)


@pytest.mark.parametrize("name", JOINABLE)
def test_zeros_between_and_behind_compressed_streams_are_padding(tmp_path, name):
    stream = JOINABLE[name](TEXT)
    (tmp_path / "padded").write_bytes(stream + bytes(4) + stream + bytes(200_000))
    assert b"".join(chunk for chunk, _ in read_chunks(tmp_path / "padded")) == TEXT * 2

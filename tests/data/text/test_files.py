"""Text files of any kind, found by name and read as parts of whole lines."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from spe_dist.data.text.files import find_files, part_starts, read_chunks, read_parts, slice_sizes
from spe_dist.errors import DataError

zstandard = pytest.importorskip("zstandard")
LINES = [f"This is sentence number {i} ." for i in range(200)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def lines(files: list[Path]) -> list[str]:
    return [line.decode() for part in read_parts(files) for found in part.slices for line in found.data.splitlines()]


def write_as(path: Path, data: bytes) -> Path:
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(compress.get(path.suffix, bytes)(data))
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_every_compression_gives_the_same_lines(tmp_path, suffix):
    assert lines([write_as(tmp_path / f"a.txt{suffix}", TEXT)]) == LINES


def test_a_compressed_file_is_known_by_its_bytes_whatever_its_name(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes(gzip.compress(TEXT))
    assert lines([path]) == LINES


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
    assert lines([tmp_path / "mark.txt"]) == LINES


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


@pytest.mark.parametrize("part_bytes", [1, 20, 50, 1_000])
def test_parts_can_be_read_from_any_one_on(tmp_path, part_bytes):
    files = [tmp_path / "a.txt", tmp_path / "empty.txt", tmp_path / "b.txt.gz", tmp_path / "c.txt"]
    for i, path in enumerate(files):
        data = b"" if path.stem == "empty" else b"\n".join(f"{i} {line}".encode() for line in LINES)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    parts = list(read_parts(files, part_bytes=part_bytes))
    starts = part_starts((slice_sizes(path, part_bytes=part_bytes) for path in files), part_bytes)
    assert [start.number for start in starts] == list(range(len(parts)))
    for start in starts:
        assert list(read_parts(files, part_bytes=part_bytes, start=start)) == parts[start.number :]


@pytest.mark.parametrize("part_bytes", [1, 100, 999, 1 << 20])
def test_parts_of_any_size_hold_every_line_once_in_order(tmp_path, part_bytes):
    files = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "empty.txt", tmp_path / "c.txt"]
    for i, path in enumerate(files):
        path.write_bytes(b"" if path.stem == "empty" else b"\n".join(f"{i} {line}".encode() for line in LINES))
    found = [
        s
        for part in read_parts(files, part_bytes=part_bytes)
        for part_lines in part.slices
        for s in part_lines.data.splitlines()
    ]
    assert found == [f"{i} {line}".encode() for i in (0, 1, 3) for line in LINES]
    starts = [
        (part_lines.file, part_lines.first_line)
        for part in read_parts(files, part_bytes=part_bytes)
        for part_lines in part.slices
    ]
    lines = [
        part_lines.data.splitlines()[0]
        for part in read_parts(files, part_bytes=part_bytes)
        for part_lines in part.slices
    ]
    assert [f"{file} {LINES[line - 1]}".encode() for file, line in starts] == lines


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_line_ends_of_other_systems_cut_documents_at_the_same_places(tmp_path, end, monkeypatch):
    text = b"\n\n".join(b"one line\nand another of paragraph %d" % i for i in range(300))
    (tmp_path / "unix.txt").write_bytes(text)
    (tmp_path / "other.txt").write_bytes(text.replace(b"\n", end))
    monkeypatch.setattr("spe_dist.data.text.files._READ_BYTES", 101)  # line ends fall on the borders of reads
    unix, other = (
        [part_lines.data for part in read_parts([tmp_path / name], b"\n\n", 1000) for part_lines in part.slices]
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


@pytest.mark.parametrize("kind", JOINABLE)
def test_a_few_bytes_that_stand_for_gigabytes_are_read_in_small_pieces(tmp_path, kind):
    path = tmp_path / f"a.txt.{kind}"
    size = 96 << 20
    path.write_bytes(JOINABLE[kind](bytes(size)))
    assert path.stat().st_size < size / 500
    sizes = [len(data) for data, _ in read_chunks(path)]
    assert sum(sizes) == size and max(sizes) <= (1 << 20 if kind != "zst" else 512 << 20)
    with pytest.raises(DataError, match="line of more than 32 MiB"):
        list(read_parts([path]))


@pytest.mark.parametrize("kind", JOINABLE)
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_pieces_join_to_the_whole_whatever_their_size(tmp_path, kind, size):
    path, data = tmp_path / "a", bytes(size)
    path.write_bytes(JOINABLE[kind](data) * 2)
    assert b"".join(chunk for chunk, _ in read_chunks(path)) == 2 * data


def test_a_file_that_is_removed_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a line\n")
    parts = read_parts([path], chunks=lambda file: iter([(file.read_bytes(), 7), (b"", file.unlink() or 7)]))
    with pytest.raises(DataError, match=r"a\.txt cannot be read any more: No such file"):
        list(parts)

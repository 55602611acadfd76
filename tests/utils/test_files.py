"""Files and folders that appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from spe_dist.errors import CheckpointError
from spe_dist.utils.files import atomic_file, atomic_folder, goes_to_stream, remove_unfinished, write_atomically


class Stopped(Exception):
    """What ends the writing half-way."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole_with_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "plain", "a\r\nb\u00e9\n")
    with atomic_file(tmp_path / "private") as written:
        written.write_bytes(b"x")
        written.chmod(0o600)
        assert names(tmp_path) == sorted(["plain", written.name])
    assert (tmp_path / "plain").read_bytes() == "a\r\nb\u00e9\n".encode()
    (tmp_path / "by_hand").write_text("x")
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(Stopped), atomic_file(tmp_path / "file") as written:
        written.write_bytes(b"half of the new")
        raise Stopped
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"


def test_what_was_written_until_a_failure_is_kept_under_the_name_asked_for(tmp_path):
    part = tmp_path / "file.part"
    with pytest.raises(Stopped), atomic_file(tmp_path / "file", keep_as=part) as written:
        written.write_bytes(b"half")
        raise Stopped
    assert names(tmp_path) == ["file.part"] and part.read_bytes() == b"half"
    with atomic_file(tmp_path / "file", keep_as=part) as written:
        written.write_bytes(b"all")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"all"


def test_links_are_written_through(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    assert not goes_to_stream(tmp_path / "link") and goes_to_stream(Path(os.devnull))


def test_folder_appears_whole_in_place_of_the_old_one(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "folder") as written:
            (written / "inner").mkdir()
            (written / "inner" / "file").write_text(content)
    assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "new"
    assert os.access(tmp_path / "folder" / "inner", os.X_OK)


def test_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(Stopped), atomic_folder(tmp_path / "folder") as written:
        (written / "new").touch()
        raise Stopped
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["old"]


def test_folder_beside_which_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="choose another OUTPUT"), atomic_folder(tmp_path / "file" / "folder"):
        pass


def test_leftovers_of_killed_writers_are_removed_by_name(tmp_path):
    for name in (".a.tar.12ab.writing", ".b.tar.34cd.writing", "a.tar", "my.writing"):
        (tmp_path / name).touch()
    (tmp_path / ".tokenizer.x.writing").mkdir()
    remove_unfinished(tmp_path, "a.tar")
    assert names(tmp_path) == [".b.tar.34cd.writing", ".tokenizer.x.writing", "a.tar", "my.writing"]
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["a.tar", "my.writing"]

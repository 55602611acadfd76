import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from small_steps import start

from spe_dist.distributed import checkpoint
from spe_dist.distributed.checkpoint import Checkpoints, find_checkpoint, list_checkpoints, read_state
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fence import Fence
from spe_dist.errors import CheckpointError
from spe_dist.utils.files import file_sha256


@pytest.fixture
def context():
    return RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


def writer(text):
    def write(folder):
        (folder / "engine").mkdir()
        (folder / "engine" / "part").write_text(text)

    return write


def test_checkpoints_are_kept_pointed_at_and_pruned(tmp_path, context):
    checkpoints = Checkpoints(tmp_path, keep=2, context=context)
    for step in (5, 10, 15):
        checkpoints.save(step, {"step": step}, writer(str(step)))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000015", "step_00000010"]
    assert (tmp_path / "latest").read_text() == "step_00000015"
    assert checkpoints.newest_valid() == (tmp_path / "step_00000015", [])
    assert checkpoints.problem_of(tmp_path / "step_00000015") is None


def test_every_change_of_a_state_and_every_file_beside_it_is_seen(tmp_path, context):
    checkpoints = Checkpoints(tmp_path, keep=3, context=context)
    path = checkpoints.save(1, {"step": 1, "data": {"seed": 3}}, writer("x"))
    text = (path / "state.json").read_text()
    whole = json.loads(text)
    assert checkpoints.problem_of(path) is None and read_state(path)["data"] == {"seed": 3}
    edits = [{**whole, "step": 2}, {**whole, "data": {"seed": 4}}, {**whole, "checksums": {}}, {**whole, "more": 1}]
    edits += [{name: value for name, value in whole.items() if name != gone} for gone in whole]
    for edited in edits:
        (path / "state.json").write_text(json.dumps(edited))
        assert "state.json" in checkpoints.problem_of(path)
    (path / "state.json").write_text(text.replace("\n", ""))  # the same in another form
    assert checkpoints.problem_of(path) is None
    (path / "engine" / "more").write_text("more")
    assert "engine/more is not among the files that state.json lists" in checkpoints.problem_of(path)


def test_a_checkpoint_of_an_earlier_version_is_passed_over_with_what_to_do(tmp_path, context):
    """Its engine's files are DeepSpeed's own, pickled; its state has no checksum of itself."""
    path = tmp_path / "step_00000004"
    (path / "engine").mkdir(parents=True)
    (path / "engine" / "mp_rank_00_model_states.pt").write_bytes(b"pickled")
    state = {
        "step": 4,
        "checksums": {"engine/mp_rank_00_model_states.pt": file_sha256(next((path / "engine").iterdir()))},
    }
    (path / "state.json").write_text(json.dumps(state))
    checkpoints = Checkpoints(tmp_path, keep=3, context=context)
    newest, (line,) = checkpoints.newest_valid()
    assert newest is None and "written by an earlier version" in line and "start a new run in another --output" in line
    whole = checkpoints.save(2, {"step": 2}, writer("x"))
    assert checkpoints.newest_valid()[0] == whole


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "state"])
def test_newest_valid_passes_over_damage_and_says_so(tmp_path, context, damage):
    checkpoints = Checkpoints(tmp_path, keep=3, context=context)
    for step in (1, 2):
        checkpoints.save(step, {"step": step}, writer("x" * 100))
    part = tmp_path / "step_00000002" / "engine" / "part"
    if damage == "flip":
        part.write_text("x" * 99 + "y")
    elif damage == "cut":
        part.write_text("x")
    elif damage == "remove":
        part.unlink()
    else:
        (tmp_path / "step_00000002" / "state.json").write_text("{")
    path, passed_over = checkpoints.newest_valid()
    assert path == tmp_path / "step_00000001"
    assert len(passed_over) == 1 and "step_00000002" in passed_over[0]


def test_a_checkpoint_that_an_active_run_replaces_while_it_is_looked_at_is_no_damage(tmp_path, context):
    active = Checkpoints(tmp_path, keep=1, context=context)
    active.save(1, {"step": 1}, writer("one"))

    class Slow(Checkpoints):
        def problem_of(self, path):
            if path.name == "step_00000001":
                active.save(2, {"step": 2}, writer("two"))
            return super().problem_of(path)

    assert Slow(tmp_path, 1, context).newest_valid() == (tmp_path / "step_00000002", [])


def test_a_failure_while_writing_leaves_the_older_checkpoint_alone(tmp_path, context):
    checkpoints = Checkpoints(tmp_path, keep=1, context=context)
    checkpoints.save(1, {"step": 1}, writer("one"))

    def fail(folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(CheckpointError, match=r"disk full.*correct that.*from step_00000001"):
        checkpoints.save(2, {"step": 2}, fail)
    assert checkpoints.newest_valid()[0] == tmp_path / "step_00000001"
    checkpoints.save(2, {"step": 2}, writer("two"))
    assert sorted(os.listdir(tmp_path)) == ["latest", "step_00000002"]


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path, context):
    """Every state of the folder that a kill can leave behind is either the old checkpoint or the new one, whole."""
    checkpoints = Checkpoints(tmp_path, keep=2, context=context)
    checkpoints.save(1, {"step": 1}, writer("one"))
    (tmp_path / ".partial_step_00000002").mkdir()
    (tmp_path / ".partial_step_00000002" / "engine").write_text("half")
    (tmp_path / ".latest").write_text("step_00000002")
    assert checkpoints.newest_valid()[0] == tmp_path / "step_00000001"
    assert find_checkpoint(tmp_path) == tmp_path / "step_00000001"


def test_pointer_behind_the_rename_does_not_hide_the_newest(tmp_path, context):
    checkpoints = Checkpoints(tmp_path, keep=2, context=context)
    checkpoints.save(1, {"step": 1}, writer("one"))
    checkpoints.save(2, {"step": 2}, writer("two"))
    (tmp_path / "latest").write_text("step_00000001")
    assert checkpoints.newest_valid()[0] == tmp_path / "step_00000002"


@pytest.mark.parametrize("keep", [1, 2])
def test_what_was_just_written_is_kept_and_later_steps_that_are_trained_again_go(tmp_path, context, keep):
    checkpoints = Checkpoints(tmp_path, keep=keep, context=context)
    for step in (10, 20, 30):
        Checkpoints(tmp_path, keep=3, context=context).save(step, {"step": step}, writer(str(step)))
    (tmp_path / "step_00000030" / "engine" / "part").unlink()
    checkpoints.save(15, {"step": 15}, writer("again"))  # after a resume from step 10
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000015", "step_00000010"][:keep]
    assert find_checkpoint(tmp_path) == checkpoints.newest_valid()[0] == tmp_path / "step_00000015"


def test_later_steps_that_are_given_up_are_found_no_more_and_go_with_the_next_save(tmp_path, context):
    checkpoints = Checkpoints(tmp_path, keep=3, context=context)
    for step in (10, 20, 30):
        checkpoints.save(step, {"step": step}, writer(str(step)))
    for _ in range(2):  # what an earlier one has left is in nobody's way
        checkpoints.give_up_after(20)
        assert checkpoints.newest_valid()[0] == find_checkpoint(tmp_path) == tmp_path / "step_00000020"
        assert (tmp_path / "latest").read_text() == "step_00000020"
        shutil.copytree(tmp_path / "step_00000020", tmp_path / "step_00000030", dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "step_00000030")
    checkpoints.give_up_after(20)
    checkpoints.save(25, {"step": 25}, writer("25"))
    assert sorted(os.listdir(tmp_path)) == ["latest", "step_00000010", "step_00000020", "step_00000025"]


def test_full_disk_is_an_error_before_anything_is_written(tmp_path, context, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2, context=context)
    checkpoints.save(1, {"step": 1}, writer("one"))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.statvfs_result((0,) * 10) and type("U", (), {"free": 0}))
    with pytest.raises(CheckpointError, match="no space"):
        checkpoints.save(2, {"step": 2}, writer("two"))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001"]


def test_a_start_that_lost_the_folder_neither_saves_nor_may_write_beside_it(tmp_path, context):
    old, new = Fence(tmp_path), Fence(tmp_path)
    old.claim()
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, context=context, fence=old)
    checkpoints.check_owner()
    new.claim()
    written = []
    for action in (checkpoints.check_owner, lambda: checkpoints.save(5, {}, written.append)):
        with pytest.raises(CheckpointError, match="taken over"):
            action()
    assert written == [] and not (tmp_path / "checkpoints").exists()


def fail_at(monkeypatch, call):
    """Have the `call`-th renaming from now on fail, be it by a path or by `os`; how many there were is counted."""
    made = []

    def failing(rename):
        def attempt(*names):
            made.append(names)
            if len(made) == call:
                raise OSError(5, "Input/output error")
            return rename(*names)

        return attempt

    for owner, name in ((Path, "rename"), (os, "rename"), (os, "replace")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    return made


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "a step once more"])
@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_a_renaming_that_fails_leaves_a_whole_checkpoint_where_the_pointer_says(
    tmp_path, context, monkeypatch, call, keep, again
):
    checkpoints = Checkpoints(tmp_path, keep=keep, context=context)
    checkpoints.save(1, {"step": 1}, writer("before"))
    step = 1 if again else 2
    with monkeypatch.context() as patched:
        made = fail_at(patched, call)
        try:
            checkpoints.save(step, {"step": step}, writer("after"))
            assert len(made) < call
        except CheckpointError as error:
            assert "Input/output error" in str(error) and len(made) >= call
    pointed = tmp_path / (tmp_path / "latest").read_text()
    assert pointed == find_checkpoint(tmp_path) and checkpoints.problem_of(pointed) is None
    newest = checkpoints.newest_valid()
    assert newest[0] is not None and newest[1] == []
    assert (newest[0] / "engine" / "part").read_text() in ("before", "after")
    checkpoints.save(3, {"step": 3}, writer("last"))
    kept = [newest[0].name] * (keep - 1)
    assert sorted(os.listdir(tmp_path))[-keep:] == [*kept, "step_00000003"]
    assert not list(tmp_path.glob(".*"))


def test_a_start_that_loses_the_folder_while_it_writes_publishes_nothing(tmp_path, context):
    old, new = Fence(tmp_path), Fence(tmp_path)
    old.claim()
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1, context=context, fence=old)
    checkpoints.save(1, {"step": 1}, writer("old"))

    def write(folder):
        writer("late")(folder)
        new.claim()

    with pytest.raises(CheckpointError, match="taken over"):
        checkpoints.save(2, {"step": 2}, write)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step_00000001"]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step_00000001"
    late = Checkpoints(tmp_path / "checkpoints", keep=1, context=context, fence=new)
    path = late.save(2, {"step": 2}, writer("new"))
    assert (path / "engine" / "part").read_text() == "new"
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["latest", "step_00000002"]


def test_find_checkpoint_accepts_step_folder_and_run_folder(tmp_path, context):
    path = Checkpoints(tmp_path / "checkpoints", keep=2, context=context).save(3, {"step": 3}, writer("x"))
    assert find_checkpoint(path) == find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "checkpoints") == path
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        find_checkpoint(tmp_path / "elsewhere")


def test_odd_entries_among_checkpoints_are_passed_over_and_end_nothing(tmp_path, context, capsys):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, 2, context)
    checkpoints.save(1, {}, writer("1"))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / "step_00000001", elsewhere)
    (folder / "step_00000000").symlink_to(elsewhere)
    (folder / "step_00000009").write_text("a file")
    (folder / "step_00000008").symlink_to(tmp_path / "nowhere")
    (folder / ".partial_step_00000007").write_text("a file")
    path, passed_over = checkpoints.newest_valid()
    assert path == folder / "step_00000001"
    assert [line.partition(":")[0] for line in passed_over] == ["step_00000009", "step_00000008"]
    for step in (2, 3):
        checkpoints.save(step, {}, writer("w"))
    assert [path.name for path in list_checkpoints(folder)] == ["step_00000003", "step_00000002"]
    assert (elsewhere / "state.json").exists() and (folder / "step_00000009").read_text() == "a file"


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"../../..", b".", b"step_00000099"])
def test_a_pointer_that_names_nothing_is_no_pointer(tmp_path, context, content):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, context)
    checkpoints.save(1, {}, writer("1"))
    (tmp_path / "checkpoints" / "latest").write_bytes(content)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step_00000001"


def test_an_old_checkpoint_that_cannot_be_removed_stays_with_a_warning(tmp_path, context, monkeypatch, capsys):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 1, context)
    checkpoints.save(1, {}, writer("1"))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("spe_dist.distributed.checkpoint.shutil.rmtree", refuse)
    checkpoints.save(2, {}, writer("2"))
    assert "step_00000001 cannot be removed (Permission denied)" in capsys.readouterr().out
    assert checkpoints.newest_valid()[0].name == "step_00000002"


def test_a_file_that_cannot_be_read_is_damage(tmp_path, context, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, context)
    checkpoints.save(1, {}, writer("1"))
    checkpoints.save(2, {}, writer("2"))

    def refuse(path):
        if "step_00000002" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return file_sha256(path)

    monkeypatch.setattr("spe_dist.distributed.checkpoint.file_sha256", refuse)
    path, passed_over = checkpoints.newest_valid()
    assert path.name == "step_00000001" and "cannot be read (Permission denied)" in passed_over[0]


def test_files_of_a_checkpoint_have_the_users_usual_mode(tmp_path, context):
    def write(folder):
        (folder / "weights").write_text("w")
        (folder / "weights").chmod(0o600)

    path = Checkpoints(tmp_path / "checkpoints", 2, context).save(1, {}, write)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o666 & ~current_umask()}


def current_umask():
    value = os.umask(0)
    os.umask(value)
    return value


def save_where_files_are_seen_late(folder):
    """Rank 1 sees what is new at the third look only, rank 0 no file of rank 1 in a listing; what problem they find."""
    context = start()
    exists, is_file, looks = Path.exists, Path.is_file, Counter()

    def late(look):
        def looked(path):
            looks[path] += 1
            own = path.name == "rank_00001.safetensors" or not path.is_relative_to(folder)
            return look(path) and (own or looks[path] > 2)

        return looked

    def write(path):
        (path / "tensors").mkdir(exist_ok=True)
        (path / "tensors" / f"rank_{context.rank:05d}.safetensors").write_text(str(context.rank))

    if context.rank:
        Path.exists, Path.is_file = late(exists), late(is_file)
    else:
        listed = checkpoint._files
        checkpoint._files = lambda path: (
            name for name in listed(path) if "partial" not in str(path) or "1." not in name
        )
    checkpoints = Checkpoints(folder, 2, context)
    path = checkpoints.save(1, {"step": 1}, write)
    return checkpoints.problem_of(path), sorted(read_state(path)["checksums"])


@pytest.mark.distributed
def test_files_that_other_machines_see_late_are_waited_for(run_ranks, tmp_path):
    files = [f"tensors/rank_{rank:05d}.safetensors" for rank in range(2)]
    assert run_ranks(save_where_files_are_seen_late, 2, tmp_path / "checkpoints") == [(None, files)] * 2

"""Nothing that lies in a checkpoint runs code: each file in turn is a pickle that would leave a marker."""

from __future__ import annotations

import io
import os
import pickle

import pytest
import torch
from checkpoint_maker import make_checkpoint, write_state

from spe_dist.cli import export
from spe_dist.config.loading import resolve
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fragments.tensors import CheckpointTensors
from spe_dist.errors import SpeError
from spe_dist.moco.fragments import Fragment
from spe_dist.training.resume import changed_settings, choose_start

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
NAME = "weights/spe.span_encoder.mlp.linear.weight"


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def pickles(marker):
    """The same object as a plain pickle, and in the two forms that torch.save has."""
    yield pickle.dumps(Touch(marker))
    for zipped in (True, False):
        written = io.BytesIO()
        torch.save(Touch(marker), written, _use_new_zipfile_serialization=zipped)
        yield written.getvalue()


def use(run, made):
    """All that a resume and an export read of it."""
    point = choose_start(resolve([{"output": str(run), "resume": "auto"}]).train, CONTEXT, made)
    assert point.checkpoint is not None
    changed_settings(point.checkpoint, resolve([]))
    source = CheckpointTensors(point.checkpoint, None)
    shape, dtype = source.describe(NAME)
    source.read([Fragment(NAME, shape, 0, torch.empty(torch.Size(shape).numel(), dtype=dtype))])


def test_a_pickle_in_place_of_any_file_of_a_checkpoint_runs_nowhere(tmp_path, capsys):
    made = make_checkpoint(tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 3, CONTEXT)
    use(made.run, checkpoints)  # as it is, it is read
    marker = tmp_path / "marker"
    names = sorted(file.relative_to(made.folder) for file in made.folder.rglob("*") if file.is_file())
    assert len(names) >= 7
    for name in names:
        content = (made.folder / name).read_bytes()
        for hostile in pickles(marker):
            (made.folder / name).write_bytes(hostile)
            if name.name != "state.json":
                write_state(made.folder)  # the checksums are right
            for encoder in ("query", "key"):
                arguments = [str(made.run), str(tmp_path / "out"), "--encoder", encoder, "--overwrite"]
                assert export.main(arguments) in (0, 2)
            try:
                use(made.run, checkpoints)
            except SpeError as error:
                assert "\n" not in str(error)
            assert not marker.exists(), name
        (made.folder / name).write_bytes(content)
        write_state(made.folder)
    with pytest.raises(FileNotFoundError):
        marker.stat()
    pickle.loads(next(pickles(marker)))
    assert marker.exists()  # the pickle does what it is for
    assert "Traceback" not in capsys.readouterr().err

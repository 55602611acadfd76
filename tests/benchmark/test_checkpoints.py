"""The benchmark of checkpoints: both kinds are written and read by two ranks, and ours takes fewer bytes."""

import pytest

from spe_dist.benchmark.pretraining.processes import Entry, measure_checkpoints_of
from spe_dist.benchmark.pretraining.work import Work


@pytest.mark.distributed
@pytest.mark.long
def test_both_kinds_of_checkpoints_are_timed_in_turn(tmp_path):
    given = {"global_batch_sentences": 8, "queue_keys": 64, "precision": "float32"}
    facts, times = measure_checkpoints_of(Work("2x128", given, 2, vocabulary=500), Entry(2), str(tmp_path), 2)
    assert facts.parameters > 500_000 and [found.kind for found in times] == ["fragments", "DeepSpeed's"] * 2
    assert all(found.save_s > 0 and found.resume_s > 0 for found in times)
    ours, deepspeeds = times[:2]
    assert 0.8 < ours.bytes / (20 * facts.parameters) < 1.2
    assert deepspeeds.bytes > 1.2 * ours.bytes
    assert not list(tmp_path.iterdir())

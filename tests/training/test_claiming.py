"""A start that is refused leaves an active run in the same folder alone."""

import os
import subprocess
import sys
import time

import pytest
from project import ROOT
from small_runs import PRETRAINING, command_line, zero_stage

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED, USER_ERROR
from spe_dist.training.metrics import read_rows
from spe_dist.utils.run_files import METRICS_FILE, STOP_FILE

SETTINGS = {**PRETRAINING, "steps": 100_000, "checkpoint_every_steps": 5, "evaluate_sentences": 0, "log_every_steps": 1}


def wait_for(condition, active):
    deadline = time.monotonic() + 180
    while not condition():
        assert active.poll() is None, active.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--resume=auto", "--queue_keys=60"], "queue_keys"),
        (["--resume=auto", "--global_batch_sentences=12"], "global_batch_sentences"),
        (["--resume=auto", "--contrastive_size=8"], "contrastive_size"),
        ([], "holds another run"),
    ],
)
def test_a_refused_start_does_not_stop_the_run_that_is_active(run_ranks, active_run, capfd, extra, words):
    output, argv, active = active_run
    rows = output / METRICS_FILE
    assert run_ranks(pretrain.main, 1, [*argv, *extra]) == [USER_ERROR]
    assert words in capfd.readouterr().err
    trained = len(read_rows(rows))
    wait_for(lambda: len(read_rows(rows)) > trained + 20, active)


@pytest.mark.distributed
def test_a_refused_start_leaves_the_request_to_stop_to_the_run_that_it_is_meant_for(run_ranks, active_run):
    output, argv, active = active_run
    active.send_signal(19)  # SIGSTOP: it cannot look
    (output / STOP_FILE).touch()
    assert run_ranks(pretrain.main, 1, [*argv, "--resume=auto", "--queue_keys=60"]) == [USER_ERROR]
    assert (output / STOP_FILE).exists()
    active.send_signal(18)
    assert active.wait(timeout=180) == STOPPED


@pytest.fixture(scope="module")
def active_run(demo_shards, tmp_path_factory):
    """A run that trains in a process of its own: its folder, arguments and process."""
    output = tmp_path_factory.mktemp("active") / "run"
    argv = [
        *command_line({**SETTINGS, "shards": demo_shards, "output": output}),
        zero_stage(output.parent, 1),
    ]
    command = [sys.executable, "spe_dist/pretrain.py", *argv]
    active = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        wait_for(lambda: (output / "checkpoints" / "step_00000010").exists(), active)
        yield output, argv, active
    finally:
        active.kill()
        active.wait()

"""A rank that stops without ending: the others name it and the step, and the run can go on."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from project import ROOT
from small_runs import PRETRAINING, ask_to_stop, command_line

from spe_dist import pretrain
from spe_dist.cli.exits import STOPPED
from spe_dist.distributed.ports import free_port
from spe_dist.training.metrics import read_rows

SETTINGS = {**PRETRAINING, "steps": 100_000, "checkpoint_every_steps": 3, "evaluate_sentences": 0}


def start(rank, ranks, port, argv):
    place = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in place.items()} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "spe_dist/pretrain.py", *argv]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def resume(argv):
    ask_to_stop(after=8)
    return pretrain.main([*argv, "--resume=auto", "--timeout_s=60"])


@pytest.mark.distributed
@pytest.mark.parametrize("stopped", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_stopped_rank_is_named_with_the_step_and_the_run_resumes(run_ranks, demo_shards, tmp_path, stopped):
    output = tmp_path / "run"
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": output})
    port, ranks = free_port(), 2
    processes = [start(rank, ranks, port, [*argv, "--timeout_s=4"]) for rank in range(ranks)]
    try:
        while not (output / "checkpoints" / "step_00000006").exists():
            assert all(process.poll() is None for process in processes), processes[0].communicate()
            time.sleep(0.05)
        processes[stopped].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        _, errors = processes[1 - stopped].communicate(timeout=120)
        assert time.monotonic() - began < 90
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[1 - stopped].returncode == 1
    [line] = [line for line in errors.splitlines() if "error:" in line]
    assert line == errors.splitlines()[-1] and "Traceback" not in errors
    found = re.search(r"has waited for 4 s \(timeout_s\) in step (\d+): rank (\d)( on \S+)? does not answer", line)
    assert found and int(found[2]) == stopped and int(found[1]) >= 6

    assert run_ranks(resume, 2, argv) == [STOPPED, 0]
    steps = [row["step"] for row in read_rows(output / "metrics.jsonl", "train")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 10

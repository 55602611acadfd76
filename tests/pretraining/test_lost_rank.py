"""A rank that is killed, with no launcher to end the others: they notice, say so, and the run can go on."""

import os
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


def start(rank, port, argv):
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in place.items()} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "spe_dist/pretrain.py", *argv]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def resume(argv):
    ask_to_stop(after=8)
    return pretrain.main([*argv, "--resume=auto"])


@pytest.mark.distributed
def test_the_others_end_with_a_message_and_the_run_resumes(run_ranks, demo_shards, tmp_path):
    output = tmp_path / "run"
    argv = command_line({**SETTINGS, "shards": demo_shards, "output": output})
    port = free_port()
    ranks = [start(rank, port, argv) for rank in (0, 1)]
    try:
        while not (output / "checkpoints" / "step_00000006").exists():
            assert all(rank.poll() is None for rank in ranks), ranks[0].communicate()
            time.sleep(0.05)
        ranks[1].kill()
        _, errors = ranks[0].communicate(timeout=120)
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[0].returncode == 1
    assert "error: the connection to another rank is lost" in errors.splitlines()[-1]

    assert run_ranks(resume, 2, argv) == [STOPPED, 0]
    steps = [row["step"] for row in read_rows(output / "metrics.jsonl", "train")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 10

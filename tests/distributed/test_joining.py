"""A rank that dies while the ranks are starting, with no launcher: the others notice, name it and end."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from project import ROOT

from spe_dist.distributed.joining.store import ELSEWHERE, LOST, Waiting, has_launcher, running_ranks
from spe_dist.distributed.joining.watch import Watch
from spe_dist.distributed.launch import LaunchEnvironment
from spe_dist.distributed.ports import free_port
from spe_dist.errors import TrainingFailure

# A rank that begins `delay` seconds late and stands still at one moment of its start.
RANK_SCRIPT = """
import os, sys, time
where, delay = sys.argv[1], float(sys.argv[2])
def here(moment):
    print(moment, flush=True)
    if where == moment:
        time.sleep(600)
here("import")
time.sleep(delay)
import torch.distributed as dist
from spe_dist.cli.exits import run_training
from spe_dist.distributed.launch import detect
from spe_dist.distributed import context as ranks
here("imported")
def stop_there(name, moment):
    original = getattr(ranks.dist, name)
    def patched(*args, **given):
        here(moment)
        return original(*args, **given)
    setattr(ranks.dist, name, patched)
stop_there("init_process_group", "joined")
stop_there("new_group", "connected")
def main():
    context = ranks.start_ranks(detect(), timeout_s=1_800.0, start_timeout_s=float(sys.argv[3]))
    here("started")
    context.barrier()
    here("trained")
    ranks.stop_ranks()
    return 0
sys.exit(run_training(main))
"""
ENDS_WITHIN_S = 60.0
QUICK = [("joined", 1), ("started", 0)]


def place(rank, port, ranks=2, launcher="torchrun"):
    return LaunchEnvironment(launcher, rank, ranks, rank, ranks, f"node{rank}", "127.0.0.1", port)


def start(rank, port, where="", delay=0.0, start_timeout_s=5.0):
    variables = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in variables.items()} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RANK_SCRIPT, where, str(delay), str(start_timeout_s)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def wait_for(process, moment):
    for line in process.stdout:
        if line.strip() == moment:
            return
    raise AssertionError((moment, process.communicate()))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("moment", "killed"),
    [
        (moment, killed) if (moment, killed) in QUICK else pytest.param(moment, killed, marks=pytest.mark.long)
        for moment in ("import", "imported", "joined", "connected", "started")
        for killed in (0, 1)
    ],
)
def test_the_others_end_soon_when_a_rank_is_killed_at_its_start(moment, killed):
    port = free_port()
    ranks = [start(rank, port, where=moment if rank == killed else "") for rank in (0, 1)]
    try:
        wait_for(ranks[killed], moment)
        if moment not in ("import", "imported"):
            wait_for(ranks[1 - killed], "joined")
        ranks[killed].kill()
        ranks[killed].wait()
        began = time.monotonic()
        _, errors = ranks[1 - killed].communicate(timeout=ENDS_WITHIN_S)
        assert time.monotonic() - began < ENDS_WITHIN_S and ranks[1 - killed].returncode == 1
        said = [line for line in errors.splitlines() if "error: " in line]  # torch's store may say more
        assert any(f"rank {killed}" in line or "connection to another rank" in line for line in said), errors
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


@pytest.mark.distributed
def test_a_slow_import_and_a_stopped_rank_are_no_death():
    port = free_port()
    ranks = [start(0, port, start_timeout_s=1.0), start(1, port, where="started", delay=3.0, start_timeout_s=1.0)]
    try:
        wait_for(ranks[0], "started")
        wait_for(ranks[1], "started")
        ranks[1].send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        assert ranks[0].poll() is None
        ranks[1].send_signal(signal.SIGCONT)
        time.sleep(0.5)
        assert ranks[0].poll() is None
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def test_processes_of_a_launch_are_known_by_their_variables(tmp_path):
    def process(number, **variables):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "environ").write_bytes(b"\0".join(f"{n}={v}".encode() for n, v in variables.items()))

    launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4711", "WORLD_SIZE": "2"}
    process(10, **launch, RANK="1")
    process(11, **{**launch, "MASTER_PORT": "4712"}, RANK="0")
    process(12)
    assert running_ranks(place(0, 4711), tmp_path) == {1}
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1"}
    process(13, **step, SLURM_PROCID="3")
    process(14, **{**step, "SLURM_STEP_ID": "0"}, SLURM_PROCID="2")
    process(15, SLURM_JOB_ID="7", SLURM_PROCID="0")  # the batch script
    assert running_ranks(place(0, 4711, launcher="slurm"), tmp_path, step) == {3}


@pytest.mark.parametrize(
    ("here", "running", "lost"),
    [
        ("0,1", {0}, "rank 1 did not start within 0 s, and no process of it runs on node0"),
        ("0,1", {0, 1}, None),  # it is only slow
        ("0", {0}, None),  # it may be slow on another machine
        ("0,1", set(), None),  # processes are hidden from each other
        ("", {0}, None),
    ],
)
def test_a_task_of_slurm_is_lost_where_its_own_machine_has_no_process_of_it(monkeypatch, here, running, lost):
    monkeypatch.setattr("spe_dist.distributed.joining.store.running_ranks", lambda _: running)
    monkeypatch.setenv("SLURM_GTIDS", here)
    waiting = Waiting(place(0, 1, launcher="slurm"), 1.0, 0.0)
    with pytest.raises(TrainingFailure, match=lost or "rank 1 did not join within timeout_s=1"):
        waiting.until(lambda: False, lambda ranks: [rank for rank in ranks if rank == 1])


def on_two_nodes(rank, launcher):
    return LaunchEnvironment(launcher, rank, 4, rank % 2, 2, f"node{rank // 2}", "127.0.0.1", 1)


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun"])
def test_a_rank_of_another_machine_has_longer(monkeypatch, launcher):
    waiting = Waiting(on_two_nodes(3, launcher), 600.0, 10.0)
    assert list(waiting._judged({3}, 10.5 * ELSEWHERE)) == [0, 1, 2, 3]
    assert list(waiting._judged({3}, 9.5 * ELSEWHERE)) == [2, 3]
    monkeypatch.setattr("spe_dist.distributed.joining.store.running_ranks", lambda _: {3})
    waiting = Waiting(on_two_nodes(3, launcher), 6.0, 0.5)
    with pytest.raises(TrainingFailure, match="rank 0 did not start within"):
        waiting.until(lambda: False, lambda ranks: [rank for rank in ranks if rank == 0])


def test_a_task_that_another_machine_knows_to_be_lost_is_waited_for_no_longer():
    waiting = Waiting(place(0, 1, launcher="slurm"), 60.0, 60.0)
    waiting.store = SimpleNamespace(check=lambda keys: keys == [LOST], get=lambda _: b"rank 3 is lost")
    with pytest.raises(TrainingFailure, match="rank 3 is lost"):
        waiting.until(lambda: False, list)


def test_launchers_are_known():
    assert not has_launcher(place(0, 1), {})
    assert not has_launcher(place(0, 1, launcher="slurm"), {})
    assert has_launcher(place(0, 1, launcher="deepspeed"), {})
    assert not has_launcher(on_two_nodes(0, "deepspeed"), {})  # on each it looks after its own ranks only
    assert has_launcher(place(0, 1), {"TORCHELASTIC_RUN_ID": "x"})


class Store(dict):
    set = dict.__setitem__

    def get(self, key):
        return self[key]


@pytest.fixture
def watches():
    """Watches of three ranks in this process, and what each of them was told."""
    store, told, made = Store(), {}, []
    for rank in range(3):
        end = lambda text, rank=rank: told.setdefault(rank, text)  # noqa: E731
        made.append(Watch(place(rank, 1, ranks=3), store, end))
    deadline = time.monotonic() + 10
    while len([peer for peer in made[0]._peers.values() if peer.place]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield made, told
    for watch in made:
        watch.close()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_rank_that_died_is_named_to_all_others(watches):
    made, told = watches
    (connection,) = made[1]._sockets
    connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: {0, 2} <= told.keys())
    assert told[0] == told[2] == f"rank 1 (process {os.getpid()} on node1) has ended"


def test_a_rank_that_ends_for_a_reason_of_its_own_looks_away(watches):
    made, told = watches
    made[2].look_away()
    (connection,) = made[1]._sockets
    connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: 0 in told)
    time.sleep(0.2)
    assert 2 not in told


def test_a_rank_that_says_goodbye_has_not_died(watches):
    made, told = watches
    made[1].close()
    made[0].close()
    time.sleep(0.3)
    assert told == {}

"""Which device a rank takes, and that DeepSpeed takes the same one."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from project import ROOT

from spe_dist.distributed.context import choose_device, sendable, start_ranks
from spe_dist.distributed.launch import LaunchEnvironment
from spe_dist.errors import ConfigError, LaunchError


@pytest.fixture
def gpus(monkeypatch):
    """A machine that seems to show this many GPUs; returns the device numbers that were chosen."""
    chosen = []

    def show(count):
        monkeypatch.delenv("DS_ACCELERATOR", raising=False)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
        monkeypatch.setattr("spe_dist.distributed.context._watch", None)
        monkeypatch.setattr("spe_dist.distributed.context.open_store", lambda *_: dist.HashStore())
        monkeypatch.setattr("spe_dist.distributed.context.Watch", lambda *_: SimpleNamespace(close=lambda: None))
        uuid = lambda device: SimpleNamespace(uuid=f"GPU-{device.index}")  # noqa: E731
        monkeypatch.setattr(torch.cuda, "get_device_properties", uuid)
        monkeypatch.setattr(dist, "init_process_group", lambda **given: None)
        monkeypatch.setattr(dist, "new_group", lambda **given: SimpleNamespace())
        return chosen

    return show


def place(launcher, local_rank, local_ranks):
    return LaunchEnvironment(launcher, local_rank, local_ranks, local_rank, local_ranks, "node", "node", 20_000)


def test_each_rank_takes_the_gpu_of_its_local_number(gpus):
    chosen = gpus(4)
    context = start_ranks(place("torchrun", 3, 4), 1.0)
    assert context.device == torch.device("cuda", 3) and chosen == [3] and os.environ["LOCAL_RANK"] == "3"


def test_a_slurm_task_that_sees_one_gpu_takes_it_and_deepspeed_is_told(gpus):
    chosen = gpus(1)
    context = start_ranks(place("slurm", 2, 4), 1.0)
    assert context.device == torch.device("cuda", 0) and chosen == [0] and os.environ["LOCAL_RANK"] == "0"
    assert context.local_rank == 2


def test_more_ranks_than_gpus_are_refused(gpus):
    gpus(2)
    with pytest.raises(LaunchError, match="this node shows 2"):
        choose_device(place("torchrun", 2, 3))


def test_a_gpu_is_for_one_rank_alone(gpus, monkeypatch):
    """Two tasks of Slurm that see the same one, and a MIG instance beside others."""
    gpus(1)
    store = dist.HashStore()
    monkeypatch.setattr("spe_dist.distributed.context.open_store", lambda *_: store)
    start_ranks(place("slurm", 0, 2), 1.0)
    with pytest.raises(LaunchError, match=r"rank 1 has the same GPU as another rank \(local rank 1 on node, GPU-0\)"):
        start_ranks(place("slurm", 1, 2), 1.0)


def test_an_error_that_cannot_be_pickled_is_told_by_its_text():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    sent = sendable(Odd("this", "that"))
    assert isinstance(sent, RuntimeError) and "Odd: this and that" in str(sent)
    kept = ConfigError("told as it is")
    assert sendable(kept) is kept


def test_a_port_that_another_run_listens_on_is_a_launch_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = (
            "from spe_dist.distributed.context import start_ranks\n"
            "from spe_dist.distributed.launch import LaunchEnvironment\n"
            f"start_ranks(LaunchEnvironment('deepspeed', 0, 1, 0, 1, 'node', '127.0.0.1', {port}), 30.0)"
        )
        result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert f"LaunchError: port {port}, where the ranks meet, is taken" in result.stderr


def test_ranks_may_open_many_files():
    """A gloo group connects each rank to every other; the usual soft limit is 1,024."""
    program = (
        "import resource; from spe_dist.distributed.context import _allow_many_files as allow; "
        "limit = resource.RLIMIT_NOFILE; hard = resource.getrlimit(limit)[1]; "
        "resource.setrlimit(limit, (256, hard)); allow(); print(resource.getrlimit(limit)[0] >= min(hard, 4096))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "True\n", result.stderr

"""Requested stops, with the real launchers around a small script of ranks that agree and "save"."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from project import ROOT

from spe_dist.distributed.stop import StopRequest, remove_stop_file
from spe_dist.utils.run_files import STOP_FILE

# Ranks that read from loader workers, agree on the flag after each batch, take a second to "save" and leave.
RANK_SCRIPT = """
import argparse, time
from pathlib import Path
import torch, torch.distributed as dist
from spe_dist.distributed.launch import detect
from spe_dist.distributed.stop import StopRequest

class Batches(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            time.sleep(0.02)
            yield 1

parser = argparse.ArgumentParser()
parser.add_argument("--local_rank")
parser.add_argument("--output", type=Path)
options = parser.parse_args()
environment = detect()
environment.export()
dist.init_process_group("gloo")
stop = StopRequest(options.output)
for number, _ in enumerate(torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=1)):
    flag = torch.tensor([float(stop.requested)])
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    if number == 3:
        (options.output / f"ready.{environment.rank}").touch()
    if flag.item():
        break
time.sleep(1.0)
(options.output / f"saved.{environment.rank}").write_text(stop.reason)
dist.barrier()
dist.destroy_process_group()
"""


class Batches(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[int]:
        yield from range(200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_sets_the_flag_and_nothing_else(number, tmp_path):
    with StopRequest(tmp_path) as stop:
        assert not stop.requested and stop.reason == ""
        signal.raise_signal(number)
        assert stop.requested and stop.reason == number.name


def test_only_a_second_interrupt_raises(tmp_path):
    with StopRequest(tmp_path) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # the deepspeed launcher sends it after Ctrl-C
        assert stop.reason == "SIGINT"
    with StopRequest(tmp_path):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_file_asks_and_one_left_from_an_earlier_run_does_not(tmp_path):
    (tmp_path / STOP_FILE).touch()
    with StopRequest(tmp_path) as stop:
        assert not stop.requested and (tmp_path / STOP_FILE).exists()  # it may be meant for a run that is active
        time.sleep(0.02)  # times of files are that coarse
        (tmp_path / STOP_FILE).touch()
        stop.remove_older_file()
        assert stop.requested and stop.reason == f"file {tmp_path / STOP_FILE}"
        assert remove_stop_file(tmp_path) and not remove_stop_file(tmp_path)
        assert stop.requested


def test_an_older_stop_file_goes_when_the_folder_is_claimed(tmp_path):
    (tmp_path / STOP_FILE).touch()
    with StopRequest(tmp_path) as stop:
        stop.remove_older_file()
        assert not stop.requested and not (tmp_path / STOP_FILE).exists()


def test_loader_workers_survive_the_signals_that_a_launcher_sends_to_all_processes(tmp_path):
    with StopRequest(tmp_path) as stop:
        others = {child.pid for child in psutil.Process().children()}  # of other tests' multiprocessing
        loader = torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=1)
        batches = iter(loader)
        assert next(batches) == 0
        (worker,) = [
            child.pid
            for child in psutil.Process().children()
            if child.pid not in others and not any("resource_tracker" in part for part in child.cmdline())
        ]
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(worker, number)
        assert list(batches) == list(range(1, 200))
        assert not stop.requested


@contextlib.contextmanager
def launched(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher around two ranks that have started to read; all of them are gone afterwards."""
    (folder / "ranks.py").write_text(RANK_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "log", "wb") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-m", *command, str(folder / "ranks.py"), "--output", str(folder)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 150
        while len(list(folder.glob("ready.*"))) < 2:
            assert launcher.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield launcher
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(folder / "ranks.py") in process.cmdline():
                    process.kill()


def torchrun(port: int, *options: str) -> list[str]:
    return ["torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", *options]


def deepspeed(port: int) -> list[str]:
    return ["deepspeed.launcher.runner", "--num_gpus=2", f"--master_port={port}"]


def launch_process(command: subprocess.Popen[bytes]) -> psutil.Process:
    (child,) = [c for c in psutil.Process(command.pid).children() if "deepspeed.launcher.launch" in c.cmdline()]
    return child


def reasons(folder: Path) -> list[str]:
    return [(folder / f"saved.{rank}").read_text() for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("options", "number"),
    [
        ((), signal.SIGTERM),
        pytest.param(("--signals-to-handle=SIGTERM,SIGINT,SIGUSR1",), signal.SIGUSR1, marks=pytest.mark.long),
    ],
)
def test_under_torchrun_all_ranks_save_before_it_kills_them(tmp_path, free_port, options, number):
    with launched(torchrun(free_port, *options), tmp_path) as launcher:
        launcher.send_signal(number)
        launcher.wait(timeout=120)
        assert reasons(tmp_path) == [number.name, number.name]


@pytest.mark.long
@pytest.mark.distributed
def test_one_signalled_rank_stops_all_and_the_launcher_sees_no_failure(tmp_path, free_port):
    with launched(torchrun(free_port), tmp_path) as launcher:
        first = next(c for c in psutil.Process(launcher.pid).children() if c.environ().get("RANK") == "1")
        first.send_signal(signal.SIGUSR1)
        assert launcher.wait(timeout=120) == 0
        assert reasons(tmp_path) == ["", "SIGUSR1"]


@pytest.mark.slow
@pytest.mark.distributed
def test_under_deepspeed_a_stop_file_lets_all_ranks_save(tmp_path, free_port):
    with launched(deepspeed(free_port), tmp_path) as command:
        (tmp_path / STOP_FILE).touch()
        assert command.wait(timeout=120) == 0
        assert reasons(tmp_path) == [f"file {tmp_path / STOP_FILE}"] * 2


@pytest.mark.long
@pytest.mark.distributed
def test_under_deepspeed_a_signal_to_its_launch_process_lets_all_ranks_save(tmp_path, free_port):
    with launched(deepspeed(free_port), tmp_path) as command:
        launch_process(command).send_signal(signal.SIGTERM)
        assert command.wait(timeout=120) == 1
        assert "SIGTERM" in reasons(tmp_path)

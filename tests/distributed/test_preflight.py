"""`spe doctor --preflight` on real ranks: what it says of sound launches, and of faults, each in bounded time."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from project import ROOT

from spe_dist.cli.doctor import preflight
from spe_dist.distributed.preflight import folder, network, nodes
from spe_dist.distributed.preflight.check import default_timeout_s
from spe_dist.distributed.preflight.lines import name_ranks

pytestmark = pytest.mark.distributed

GIB = 2**30


def check(outputs, fault=None, timeout_s=None):
    """(exit status, what this rank printed); `fault`: what is wrong on the last rank."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if fault is not None and rank == ranks - 1:
        FAULTS[fault]()
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        status = preflight(None if outputs is None else Path(outputs[min(rank, len(outputs) - 1)]), timeout_s)
    return status, stream.getvalue()


def another_version():
    real = metadata.version
    metadata.version = lambda name: "0.1.0" if name == "deepspeed" else real(name)


def full_disk():
    real = shutil.disk_usage
    shutil.disk_usage = lambda place: SimpleNamespace(free=GIB // 8) if "run" in str(place) else real(place)


def no_space_at_all():
    real = Path.write_text

    def write(path, text):
        if path.name.startswith(folder.PREFIX):
            raise OSError(28, "No space left on device")
        return real(path, text)

    Path.write_text = write


def damaged_sums():
    from spe_dist.distributed.context import RankContext

    real = RankContext.all_reduce_sum
    RankContext.all_reduce_sum = lambda self, tensor: real(self, tensor) + 1


def clock_ahead():
    real = time.time
    time.time = lambda: real() + 3600
    os.environ["SLURMD_NODENAME"] = "node7"


def other_python():
    nodes.platform = SimpleNamespace(python_version=lambda: "3.12.1")


FAULTS = {f.__name__: f for f in (another_version, full_disk, no_space_at_all, damaged_sums, clock_ahead, other_python)}


def test_many_ranks_have_more_time():
    assert [default_timeout_s(ranks) for ranks in (1, 64, 65, 1_024)] == [60, 60, 60.25, 300]


def quick(monkeypatch):
    monkeypatch.setattr(folder, "SEEN_WITHIN_S", 1.0)


def test_a_sound_launch_is_ok_in_every_line(run_ranks, tmp_path):
    output = tmp_path / "runs" / "run"
    results = run_ranks(check, 2, [output])
    assert [status for status, _ in results] == [0, 0]
    text, others = results[0][1], results[1][1]
    assert others == "" and "problem " not in text and "no problems" in text
    topics = ("meeting", "devices", "versions", "clocks", "all-reduce", "all-gather", "folder", "free space")
    assert all(f" {topic}" in text for topic in topics), text
    assert "16 MiB" in text and "GB/s" in text and f"{output} is shared by all ranks" in text
    assert not (tmp_path / "runs").exists(), "folders that it made stay"


@pytest.mark.parametrize(
    ("fault", "status", "expected"),
    [
        ("another_version", 1, "problem  versions    deepspeed differs: "),
        ("other_python", 0, "warning  versions    Python differs: "),
        ("full_disk", 1, "output: 0.1 GiB in "),
        ("no_space_at_all", 1, "cannot write in "),
        ("damaged_sums", 1, "arrived damaged"),
        ("clock_ahead", 0, "warning  clocks      node7 is +3600.0 s off"),
    ],
)
def test_a_fault_of_one_rank_is_a_line_and_every_ranks_status(run_ranks, tmp_path, fault, status, expected):
    (tmp_path / "run").mkdir()
    results = run_ranks(check, 2, [tmp_path / "run"], fault)
    assert [found for found, _ in results] == [status, status], results
    assert expected in results[0][1], results[0][1]
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_is_not_shared_is_a_problem(run_ranks, tmp_path, monkeypatch):
    quick(monkeypatch)
    results = run_ranks(check, 2, [tmp_path / "one", tmp_path / "other"])
    assert [status for status, _ in results] == [1, 1]
    assert "is not shared: rank 1 and rank 0 do not see each other's files" in results[0][1]


def test_without_an_output_the_folder_is_not_looked_at(run_ranks):
    ((status, text),) = run_ranks(check, 1, None)
    assert status == 0 and "give the run's --output" in text and "one rank" in text


def run(environment, *options, timeout=100):
    command = [sys.executable, "-m", "spe_dist", "doctor", "--preflight", *options]
    given = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=given, timeout=timeout)


def test_a_missing_rank_is_a_line_within_the_time_limit():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    began = time.monotonic()
    done = run({**names, "LOCAL_WORLD_SIZE": "2"}, "--timeout_s", "8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "problem" in done.stdout and "a rank is missing" in done.stdout and f"127.0.0.1:{port}" in done.stdout
    assert time.monotonic() - began < 60


def test_a_taken_port_is_a_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        done = run({**names, "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": str(taken.getsockname()[1])}, "--timeout_s", "8")
    assert done.returncode == 1 and "where the ranks meet, is taken" in done.stdout, done.stdout + done.stderr


def test_a_call_that_never_returns_ends_at_the_deadline(tmp_path):
    code = (
        "import time; from pathlib import Path; from spe_dist.distributed.preflight import check\n"
        "check.check_shared_folder = lambda *_: time.sleep(600)\n"
        "check.check_launch(Path('.'), 5.0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 1 and "the file system of --output does not answer" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_it_runs_under_the_launchers(tmp_path, launcher, free_port):
    options = ["--master_port", str(free_port)]
    command = {
        "torchrun": ["torchrun", "--nproc_per_node", "2", *options, "-m", "spe_dist"],
        "deepspeed": ["deepspeed", "--num_gpus", "2", *options, "--module", "spe_dist"],
    }[launcher]
    command += ["doctor", "--preflight", "--output", str(tmp_path / "run")]
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks met" in done.stdout and "no problems" in done.stdout


def test_slow_networks_and_far_clocks_are_warnings():
    assert network.SLOW_GB_S["cpu"] < network.SLOW_GB_S["cuda"]
    assert nodes.compare_clocks({"a": 0.0, "b": -0.5}).level == "ok"
    assert nodes.compare_clocks({"a": 0.0, "b": -5.0}).level == "warning"
    facts = [
        nodes.Facts(rank, "a", device, {"torch": torch.__version__}) for rank, device in enumerate(("H200", "CPU"))
    ]
    assert nodes.compare_devices(facts).level == "problem"


def test_ranks_are_named_in_runs():
    assert name_ranks([3]) == "rank 3" and name_ranks([5, 0, 1, 2]) == "ranks 0-2, 5"

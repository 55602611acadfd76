"""What all tests share: one thread a process, real ranks on one machine, small demo shards.

Tests run on the CPU unless they carry the marker `gpu`; DeepSpeed is told so before anything imports it, since it
settles on its accelerator once a process. A test that wants DeepSpeed on a GPU starts a process of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import multiprocessing
import os
import pickle
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Set before torch loads. One OpenMP thread: ranks share few cores, results do not depend on the machine, and a process
# without a thread pool can be forked safely.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# The environment's own commands (ninja, deepspeed) are found also where it is not activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

torch.set_num_threads(1)
# A busy machine is slow without a fault of ours; examples of one test may overwrite each other's files.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
# Where it only counts whether a test fails (tools/mutants.py), the smallest example of it need not be found.
settings.register_profile("mutants", settings.get_profile("tests"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))

pytest_plugins = ["extraction_fixtures"]

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SHARED_MEMORY = Path("/dev/shm")
# What a rank that trains imports, some of it late; it takes longer than most of the tests' training does.
IMPORTS_OF_RANKS = (
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "spe_dist.finetuning.run",
    "spe_dist.pretraining.run",
    "torch.utils.tensorboard",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _launcher_variables_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never sees the rank variables of a launcher that pytest itself happens to run under."""
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def find_free_port() -> int:
    """A free TCP port of loopback, below the ephemeral range; the same session tends to get the same one again."""
    first = 20_000 + (os.getpid() * 64) % 8_000  # other sessions and workers of pytest-xdist search elsewhere
    for port in range(first, first + 64):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port in {first}..{first + 63}")


def remove_shared_memory(port: int) -> None:
    """Delete what DeepSpeed's CPU all-reduce left in /dev/shm for ranks that met at this port (69 MB a rank)."""
    for leftover in SHARED_MEMORY.glob(f"deepspeed_allreduce_buffer_{os.getuid()}_*_{port}_*"):
        leftover.unlink(missing_ok=True)


class RankError(AssertionError):
    """A rank raised, died or did not finish in time; the message holds the tracebacks of the ranks."""


def _rank_main(
    function: Callable[..., Any], args: tuple, environment: dict[str, str], folder: Path, dump_after_s: float
) -> None:
    rank = environment["RANK"]
    os.environ.update(environment)
    os.setsid()  # whatever the rank starts (loader workers) ends with its process group
    stacks = open(folder / f"stacks.{rank}", "w")  # noqa: SIM115  (stays open for faulthandler)
    faulthandler.enable(stacks)
    faulthandler.dump_traceback_later(dump_after_s, file=stacks)
    try:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        result = pickle.dumps(function(*args))
    except BaseException:
        (folder / f"error.{rank}").write_text(traceback.format_exc())
        os._exit(1)
    finally:
        faulthandler.cancel_dump_traceback_later()
    part = folder / f"result.{rank}.part"
    part.write_bytes(result)
    part.rename(folder / f"result.{rank}")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # nobody leaves while another still reads from it
        torch.distributed.destroy_process_group()
    os._exit(0)  # no interpreter shutdown: what pytest registered there is not the rank's


def _end(process: multiprocessing.process.BaseProcess) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.kill()
    process.join()


def _report(folder: Path, ranks: int, exit_codes: list[int | None]) -> str:
    lines = [f"exit codes of ranks 0..{ranks - 1}: {exit_codes} (None: did not finish, ended by the test)"]
    for rank in range(ranks):
        for kind in ("error", "stacks"):
            file = folder / f"{kind}.{rank}"
            text = file.read_text().strip() if file.exists() else ""
            if text:
                lines.append(f"--- rank {rank}, {kind}\n{text}")
    return "\n".join(lines)


@pytest.fixture(scope="session")
def imports_of_ranks() -> None:
    """Import once what every rank would: ranks are forks of this process and have it then."""
    from spe_dist.distributed.engine import import_deepspeed

    import_deepspeed("cpu")
    for name in IMPORTS_OF_RANKS:
        importlib.import_module(name)


@pytest.fixture(scope="session")
def run_ranks(tmp_path_factory: pytest.TempPathFactory, imports_of_ranks: None) -> Callable[..., list[Any]]:
    """`run_ranks(function, ranks, *args, timeout_s=240, environment={})`: call `function(*args)` in every rank.

    Each rank is a fork of the test process, with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT set as a launcher does and DS_ACCELERATOR=cpu, so `torch.distributed.init_process_group("gloo")` and
    `deepspeed.init_distributed("gloo")` work. A fork has the imports already and takes any function, closures included;
    it is safe because the tests keep to one thread (above) and the test process itself holds no process group.
    Returns the ranks' results in rank order (anything that pickles; tensors come as copies). The first rank that
    raises ends all: RankError with every traceback. After `timeout_s` the ranks' stacks are reported instead.
    """

    def run(
        function: Callable[..., Any],
        ranks: int,
        *args: Any,
        timeout_s: float = 240.0,
        environment: dict[str, str] | None = None,
    ) -> list[Any]:
        assert not torch.distributed.is_initialized(), "the test process must not hold a process group"
        folder = tmp_path_factory.mktemp("ranks")
        port = find_free_port()
        context = multiprocessing.get_context("fork")
        processes = []
        for rank in range(ranks):
            launcher = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "DS_ACCELERATOR": "cpu",
                **(environment or {}),
            }
            dump_after_s = timeout_s - min(10.0, timeout_s / 2)  # a rank may have started late
            process = context.Process(target=_rank_main, args=(function, args, launcher, folder, dump_after_s))
            process.start()
            processes.append(process)
        exit_codes: list[int | None] = [None] * ranks
        try:
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                exit_codes = [process.exitcode for process in processes]
                if None not in exit_codes or any(exit_codes):
                    break
                time.sleep(0.02)
            if any(exit_codes):
                time.sleep(0.3)  # the others may be about to say more of the same failure
            finished = [(folder / f"result.{rank}").exists() for rank in range(ranks)]
            if exit_codes != [0] * ranks or not all(finished):
                raise RankError(_report(folder, ranks, exit_codes))
            return [pickle.loads((folder / f"result.{rank}").read_bytes()) for rank in range(ranks)]
        finally:
            for process in processes:
                _end(process)
            remove_shared_memory(port)
            shutil.rmtree(folder, ignore_errors=True)

    return run


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port for a test that starts a launcher itself; what DeepSpeed leaves in shared memory for it is removed."""
    port = find_free_port()
    yield port
    remove_shared_memory(port)


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a demo corpus of 1,200 sentences: text.txt and extraction/{train,dev,test}.json. Read only."""
    from spe_dist.demo.sentences import write_demo_corpus

    folder = tmp_path_factory.mktemp("demo_corpus")
    write_demo_corpus(folder, sentences=1_200, seed=0)
    return folder


@pytest.fixture(scope="session")
def demo_shards(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `demo_corpus` with a vocabulary trained on it: 12 blocks of about 100 sentences. Read only."""
    from spe_dist.data.build.make import make_shards

    folder = tmp_path_factory.mktemp("demo_shards") / "shards"
    make_shards(
        [str(demo_corpus / "text.txt")],
        str(folder),
        tokenizer=None,
        train_vocab=2_000,
        words="spaces",
        processes=1,
        held_out=0.05,
        block_sentences=100,
        quiet=True,
    )
    return folder

"""Who this rank is, and the collectives that the rest of the program is handed.

Only this package talks to torch.distributed. The training step, MoCo and the evaluation get a `RankContext` and call
its methods, so that they run and are tested without a process group. Small control messages (counts, stop flags,
objects) go over an own gloo group: they live on the CPU, and a GPU need not be synchronised for them.
"""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spe_dist.distributed.collectives.few_numbers import MOST_IN_A_RING, reduce_in_pairs
from spe_dist.distributed.collectives.gathering import Gathering, gather_into, start_gather
from spe_dist.distributed.joining.attendance import MARGIN_S, Attendance, close_all
from spe_dist.distributed.joining.devices import choose_device, refuse_shared_gpu
from spe_dist.distributed.joining.store import open_store
from spe_dist.distributed.joining.watch import Watch
from spe_dist.distributed.launch import LaunchEnvironment
from spe_dist.errors import LaunchError
from spe_dist.utils.memory import tune_memory
from spe_dist.utils.threads import threads_are_chosen

OPEN_FILES = 65_536
_watch: Watch | None = None  # of this process's ranks


@dataclass(frozen=True)
class RankContext:
    """This rank's number, device and collectives. All collectives must be called by all ranks in the same order."""

    rank: int
    ranks: int
    local_rank: int
    device: torch.device
    control: Any  # gloo process group for messages that live on the CPU
    attendance: Attendance | None = None  # None on one rank

    @property
    def waiting(self) -> AbstractContextManager[None]:
        """Inside, this rank may wait for others: after timeout_s it says which ones do not come, and ends."""
        return self.attendance.waiting if self.attendance is not None else nullcontext()

    def doing(self, what: str) -> AbstractContextManager[None]:
        """Inside, this rank is busy with `what`, as others may have to say of it."""
        return self.attendance.doing(what) if self.attendance is not None else nullcontext()

    def begin_step(self, step: int) -> None:
        """The step, counted from 0, that messages on waiting name from here on."""
        if self.attendance is not None:
            self.attendance.step = step + 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def with_own_control(self, timeout_s: float) -> RankContext:
        """The same for another thread, whose control messages go over a process group of their own. A collective."""
        if self.control is None:
            return self
        control = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        return replace(self, control=control, attendance=None)  # which tells of one thread

    def all_gather_rows(self, tensor: Tensor) -> Tensor:
        """[n, ...] of every rank, n equal, as [ranks * n, ...] in rank order."""
        if self.ranks == 1:
            return tensor
        gathered = tensor.new_empty((self.ranks * tensor.shape[0], *tensor.shape[1:]))
        with self.waiting:
            gather_into(gathered, tensor.contiguous())
        return gathered

    def all_gather_uneven(self, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
        """1-d tensors of `sizes[rank]` elements, joined in rank order. All ranks know all sizes."""
        return self.start_gather(tensor, sizes).wait()

    def start_gather(self, tensor: Tensor, sizes: Sequence[int]) -> Gathering:
        """The same without waiting for it; `tensor` must stay as it is until the caller has."""
        return start_gather(tensor, sizes, self.rank, lambda: self.waiting)

    def exchange_rows(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """[sum of sizes, ...], `sizes[r]` rows for each rank r in rank order -> [ranks, sizes[rank], ...]: those that
        are for this rank, by sender. All ranks know all sizes.
        """
        assert rows.shape[0] == sum(sizes), (rows.shape, sizes)
        if self.ranks == 1:
            return rows[None]
        mine = sizes[self.rank]
        received = rows.new_empty((self.ranks * mine, *rows.shape[1:]))
        with self.waiting:
            dist.all_to_all_single(received, rows.contiguous(), [mine] * self.ranks, list(sizes))
        return received.view(self.ranks, mine, *rows.shape[1:])

    def all_gather_object(self, value: Any) -> list[Any]:
        """One picklable value of every rank, in rank order."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        with self.waiting:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        if self.ranks == 1:
            return value
        holder = [value]
        with self.waiting:
            dist.broadcast_object_list(holder, src=0, group=self.control)
        return holder[0]

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the ranks in float64, exact for counts up to 2^53."""
        return self._reduce_numbers(numbers, dist.ReduceOp.SUM, torch.add)

    def max_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Maxima over the ranks in float64."""
        return self._reduce_numbers(numbers, dist.ReduceOp.MAX, torch.maximum)

    def _reduce_numbers(
        self, numbers: Sequence[float], operation: Any, combine: Callable[[Tensor, Tensor], Tensor]
    ) -> list[float]:
        if self.ranks == 1:
            return [float(number) for number in numbers]
        tensor = torch.tensor(numbers, dtype=torch.float64)
        with self.waiting:
            if self.ranks > MOST_IN_A_RING:
                tensor = reduce_in_pairs(tensor, combine, self.control)
            else:
                dist.all_reduce(tensor, op=operation, group=self.control)
        return tensor.tolist()

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place, on the tensor's device."""
        if self.ranks > 1:
            with self.waiting:
                dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

    def barrier(self) -> None:
        if self.ranks > 1:
            with self.waiting:
                dist.barrier(group=self.control)

    def run_on_main(self, function: Callable[[], Any]) -> Any:
        """`function()` on rank 0 only; its value on all ranks. An error on rank 0 is raised on all of them."""
        outcome: tuple[Any, Exception | None] = (None, None)
        if self.is_main:
            try:
                outcome = (function(), None)
            except Exception as error:
                outcome = (None, sendable(error))
        value, problem = self.broadcast_object(outcome)
        if problem is not None:
            raise problem
        return value


def sendable(error: Exception) -> Exception:
    """The error, or one of its text where it cannot be pickled: else the other ranks would wait for it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def start_ranks(environment: LaunchEnvironment, timeout_s: float, start_timeout_s: float = 45.0) -> RankContext:
    """Join the process group of this launch: NCCL where ranks have GPUs, gloo on CPUs.

    From here on until `stop_ranks`, the death of a rank ends the others within seconds.

    Args:
        environment: of this rank.
        timeout_s: a collective that waits longer ends the run with an error.
        start_timeout_s: how long ranks that no launcher looks after wait for one that has not begun (see
            `open_store`).

    Raises:
        LaunchError: the ranks' port is taken, or a rank has no GPU of its own.
        TrainingFailure: a rank has not come.
    """
    global _watch
    environment.export()
    _allow_many_files()
    device = choose_device(environment)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ["LOCAL_RANK"] = str(device.index)  # DeepSpeed takes its GPU from it; a Slurm task may see only one
    else:
        tune_memory()
        if not threads_are_chosen():
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // environment.local_ranks))
    if not dist.is_initialized():
        try:
            store = open_store(environment, timeout_s, start_timeout_s)
            _watch = Watch(environment, store)
            if device.type == "cuda":
                refuse_shared_gpu(environment, device, store)
            dist.init_process_group(
                backend="nccl" if device.type == "cuda" else "gloo",
                store=dist.PrefixStore("default_pg", store),
                rank=environment.rank,
                world_size=environment.ranks,
                timeout=timedelta(seconds=timeout_s + MARGIN_S),
                device_id=device if device.type == "cuda" else None,
            )
        except dist.DistNetworkError as error:
            if "EADDRINUSE" not in str(error):
                raise
            raise LaunchError(
                f"port {environment.master_port}, where the ranks meet, is taken on this machine, most likely by "
                "another run; give the launcher another one (--master_port N before the script's name)"
            ) from error
    return RankContext(
        rank=environment.rank,
        ranks=environment.ranks,
        local_rank=environment.local_rank,
        device=device,
        control=dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s + MARGIN_S)),
        attendance=_attend(environment, timeout_s) if environment.ranks > 1 else None,
    )


def _attend(environment: LaunchEnvironment, timeout_s: float) -> Attendance:
    """The watch over who arrives, with a connection of its own to the store that the ranks have met at."""

    def connect() -> dist.Store:
        store = dist.TCPStore(environment.master_addr, environment.master_port, wait_for_workers=False)
        return dist.PrefixStore("attendance", store)

    return Attendance(connect, environment.rank, environment.ranks, timeout_s, environment.node).start()


def _allow_many_files() -> None:
    """A gloo group connects each rank to every other: at 1,000 ranks the usual limit of 1,024 open files is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def stop_ranks() -> None:
    """Leave the process group; a collective."""
    close_all()
    if dist.is_initialized():
        if dist.get_world_size() > 1:
            dist.barrier()  # nobody looks into the store of rank 0 any more
        if _watch is not None:
            _watch.close()
        dist.destroy_process_group()

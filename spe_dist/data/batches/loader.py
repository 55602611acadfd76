"""The steps of a rank, one after the other, built in place or by loader processes.

The processes are a torch DataLoader around `StepBuilder` that starts safely, ends cleanly and reports errors as they
are.

Start: worker processes are forked, which takes no time, unless CUDA is in use here. A forked child must not touch CUDA
and, with RDMA networks, may corrupt memory that its parent has registered; then a fork server, a fresh process that
has imported torch but never CUDA, makes the workers. That one imports the main script once a worker, so a script that
trains needs the usual `if __name__ == "__main__"`.

Signals: schedulers and launchers send a stop to a rank's children too. Workers have these signals blocked and end with
their rank: at its request, or within a second after it died. (torch's own workers look for their parent between steps
only: one that has a step to hand over, to a pipe that is full and that nobody reads, waits for ever.)

Transport: steps travel through a pipe as one array of integers. No shared memory, which containers keep small and
which a killed process leaves behind; a step of 256 sentences is about 200 kB.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import multiprocessing
import os
import signal
import warnings
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.stream import StepBatch, StepBuilder
from spe_dist.errors import ConfigError, SpeError
from spe_dist.utils.parallel import end_with_parent

_NUMBERS = [field.name for field in fields(PackedBatch) if field.type == "int"]
_WIDE = ["sentence_ids_B", "text_ids_B"]
_NARROW = [field.name for field in fields(PackedBatch) if field.name not in ("dropout_keys", *_WIDE, *_NUMBERS)]
_BLOCKED = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}


def step_loader(
    builder: StepBuilder,
    start_step: int,
    end_step: int | None = None,
    *,
    loader_workers: int = 0,
    prefetch_steps: int = 4,
    pin_memory: bool = False,
) -> Generator[StepBatch, None, None] | WorkerLoader:
    """The builder's part of steps start_step .. end_step - 1 (no end: for ever).

    With loader workers it is a `WorkerLoader`, whose `close` ends them (so does the iterator's end, its collection and
    the end of the program).

    Raises:
        DataError: shards are damaged; when their step is due.
    """
    if loader_workers:
        return WorkerLoader(builder, start_step, end_step, loader_workers, prefetch_steps, pin_memory)
    return _in_place(builder, start_step, end_step, pin_memory)


def _in_place(
    builder: StepBuilder, start_step: int, end_step: int | None, pin_memory: bool
) -> Generator[StepBatch, None, None]:
    steps = itertools.count(start_step) if end_step is None else range(start_step, end_step)
    for step in steps:
        batch = builder.build(step)
        yield batch.pin_memory() if pin_memory else batch


@dataclass
class _Parcel:
    """A StepBatch on its way out of a worker: everything but the ids of sentences and texts fits 32 bits."""

    step: int
    epoch: int
    ids: list[np.ndarray]
    values: np.ndarray
    sizes: list[list[int]]
    numbers: list[dict[str, int]]
    replaced: int

    @classmethod
    def of(cls, batch: StepBatch) -> _Parcel:
        parts = [[getattr(b, name) for name in _NARROW] for b in batch.micro_batches]
        return cls(
            batch.step,
            batch.epoch,
            [np.stack([getattr(b, name).numpy() for name in _WIDE]) for b in batch.micro_batches],
            torch.cat([tensor.to(torch.int32) for part in parts for tensor in part]).numpy(),
            [[len(tensor) for tensor in part] for part in parts],
            [{name: getattr(b, name) for name in _NUMBERS} for b in batch.micro_batches],
            batch.replaced,
        )

    def unpack(self) -> StepBatch:
        """The StepBatch; the tensors of all micro-batches share one storage."""
        wide = torch.from_numpy(self.values).to(torch.int64)
        parts = iter(torch.split(wide, list(itertools.chain.from_iterable(self.sizes))))
        batches = []
        for ids, numbers in zip(self.ids, self.numbers, strict=True):
            values: dict[str, Any] = numbers | {name: next(parts) for name in _NARROW}
            values |= zip(_WIDE, torch.from_numpy(ids), strict=True)
            values["cu_seqlens_Q1"] = values["cu_seqlens_Q1"].to(torch.int32)
            batches.append(PackedBatch(**values))
        return StepBatch(self.step, self.epoch, batches, self.replaced)

    def pin_memory(self) -> StepBatch:
        """Called by the DataLoader's pinning thread, so that training does not wait for it."""
        return self.unpack().pin_memory()


class _Steps(IterableDataset):
    """In worker w of W: steps start + w, start + w + W, ...; an error of ours is handed over as it is."""

    def __init__(self, builder: StepBuilder, start_step: int, end_step: int | None) -> None:
        self.builder = builder
        self.start_step = start_step
        self.end_step = end_step

    def __iter__(self) -> Iterator[_Parcel | SpeError]:
        worker = get_worker_info()
        assert worker is not None
        first = self.start_step + worker.id
        end = self.end_step
        steps = itertools.count(first, worker.num_workers) if end is None else range(first, end, worker.num_workers)
        try:
            for step in steps:
                yield _Parcel.of(self.builder.build(step))
        except SpeError as error:
            yield error


class WorkerLoader(Iterator[StepBatch]):
    """Steps start_step .. end_step - 1 from `workers` processes, which are at most `prefetch_steps` ahead in all.

    At least one step a worker is prepared, so no more workers are started than prefetch_steps. Making a loader starts
    the processes and draws no ambient random number.
    """

    def __init__(
        self,
        builder: StepBuilder,
        start_step: int,
        end_step: int | None,
        workers: int,
        prefetch_steps: int,
        pin_memory: bool = False,
    ) -> None:
        if prefetch_steps < 1:
            raise ConfigError(f"prefetch_steps={prefetch_steps} with loader processes; choose at least 1")
        workers = min(workers, prefetch_steps)
        with _signals_blocked(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            before = set(multiprocessing.active_children())
            context = _context()
            loader = DataLoader(
                _Steps(builder, start_step, end_step),
                batch_size=None,
                num_workers=workers,
                collate_fn=_as_it_is,
                prefetch_factor=prefetch_steps // workers,
                multiprocessing_context=context,
                worker_init_fn=partial(_start_worker, context.get_start_method() == "fork"),
                pin_memory=pin_memory and torch.cuda.is_available(),
                generator=torch.Generator(),
            )
            self._iterator: list[Any] = [iter(loader)]
            self.processes = [p for p in multiprocessing.active_children() if p not in before]
        self._end = weakref.finalize(self, _end, self._iterator, self.processes, os.getpid())
        atexit.register(self._end)

    def __next__(self) -> StepBatch:
        if not self._iterator:
            raise StopIteration
        try:
            item = next(self._iterator[0])
        except BaseException:
            self.close()
            raise
        if isinstance(item, SpeError):
            self.close()
            raise item
        return item.unpack() if isinstance(item, _Parcel) else item

    def close(self) -> None:
        """End the worker processes; may be called twice."""
        self._end()
        atexit.unregister(self._end)


def _end(iterators: list[Any], processes: list[Any], owner: int) -> None:
    """Ask the workers to leave, kill those that do not (signals do not reach them, see above)."""
    if os.getpid() != owner:
        return  # a fork of the rank has a copy of the loader, but the workers are not its children
    for iterator in iterators:
        iterator._shutdown_workers()
    iterators.clear()
    for process in processes:
        process.join(timeout=1.0)
        if process.is_alive():
            process.kill()
            process.join()


def _start_worker(forked: bool, worker: int) -> None:
    end_with_parent(forked)


def _as_it_is(item: Any) -> Any:
    return item


def _context() -> Any:
    """How workers are started; see the head of this module."""
    if not torch.cuda.is_initialized():
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes that are started inside inherit the block; what arrives meanwhile is delivered afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        # Its start unblocks two signals as a side effect, so it is started first.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

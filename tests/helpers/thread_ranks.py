"""Stand-ins for several ranks: threads of one process that meet at a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


class Later:
    """A gather whose result is there, and is handed out on request."""

    done = False

    def __init__(self, result: torch.Tensor) -> None:
        self._result = result

    def wait(self) -> torch.Tensor:
        return self._result


class ThreadCollectives:
    """The Collectives protocol for ranks that are threads."""

    def __init__(self, rank: int, ranks: int, board: dict[int, Any], barrier: threading.Barrier) -> None:
        self.rank, self.ranks, self._board, self._barrier = rank, ranks, board, barrier

    def all_gather_object(self, obj):
        self._board[self.rank] = obj
        self._barrier.wait(60)
        gathered = [self._board[rank] for rank in range(self.ranks)]
        self._barrier.wait(60)
        return gathered

    def all_gather_rows(self, tensor):
        return torch.cat(self.all_gather_object(tensor.clone()))

    def exchange_rows(self, rows, sizes):
        sent = self.all_gather_object(rows.clone())
        return torch.stack([given.split(list(sizes))[self.rank] for given in sent])

    def start_gather(self, tensor_1d, sizes):
        return Later(self.all_gather_uneven(tensor_1d, sizes))

    def all_gather_uneven(self, tensor_1d, sizes):
        assert tensor_1d.dim() == 1 and tensor_1d.numel() == sizes[self.rank]
        return torch.cat(self.all_gather_object(tensor_1d.clone()))


def run_threads(ranks: int, function: Callable[[ThreadCollectives], Any]) -> list[Any]:
    """What `function` returns on each rank; the first exception of a rank is raised here."""
    barrier, board, results, errors = threading.Barrier(ranks), {}, [None] * ranks, []

    def target(rank: int) -> None:
        try:
            results[rank] = function(ThreadCollectives(rank, ranks, board, barrier))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=target, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results

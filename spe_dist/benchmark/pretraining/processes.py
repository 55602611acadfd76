"""Contenders in processes of their own, measured in turn: all are loaded first, then each takes its block again and
again, so that whatever else the machine does weighs on all of them alike.

Imports no torch: a process chooses its settings before torch reads them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from spe_dist.benchmark.pretraining.work import Block, Counts, Facts, Work, join_ranks
from spe_dist.distributed.launch import LaunchEnvironment, node_name
from spe_dist.distributed.ports import free_port
from spe_dist.errors import LaunchError

TIMEOUT_S = 1_800.0
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Entry:
    """A contender: our step on so many ranks of this machine, or the plain form on one.

    Attributes:
        ranks: processes.
        plain: the plain form.
        compiled: with compiled layers and heads.
        sharded: with queues spread over the ranks.
    """

    ranks: int
    plain: bool = False
    compiled: bool = False
    sharded: bool = False

    def settings(self) -> dict[str, Any]:
        """Those that it has beside the work's."""
        return {**({"compile": True} if self.compiled else {}), **({"queue": "sharded"} if self.sharded else {})}


@dataclass(frozen=True)
class Measured:
    """All that is known of a contender; `blocks` and `counts` are of all its ranks together."""

    entry: Entry
    facts: Facts
    blocks: list[Block]
    counts: Counts


def measure(
    work: Work,
    entries: Sequence[Entry],
    rounds: int,
    block_s: float,
    say: Callable[[str], None],
) -> list[Measured]:
    """Figures of all contenders.

    Args:
        work: what they train.
        entries: the contenders.
        rounds: blocks of each; the order turns by one from round to round.
        block_s: about how long a block of the first takes, at least one step.
        say: takes lines on what is going on.

    Raises:
        LaunchError: a process ended before it had measured; its own message stands above.
    """
    teams: list[_Team] = []
    try:
        for entry in entries:
            teams.append(_Team(work, entry))  # one at a time: loading is what the others would wait for
            facts = teams[-1].facts
            say(f"loaded: {facts.title}, {facts.step_s:.2f} s a step, the first {facts.first_step_s:.2f} s")
        blocks: dict[Entry, list[Block]] = {entry: [] for entry in entries}
        steps = max(1, round(block_s / teams[0].facts.step_s))  # the same sentences for all
        for number in range(rounds):
            for team in teams[number % len(teams) :] + teams[: number % len(teams)]:
                blocks[team.entry].append(join_ranks(team.ask("measure", steps)))
            say(f"round {number + 1} of {rounds}")
        return [Measured(team.entry, team.facts, blocks[team.entry], _joined(team.ask("count"))) for team in teams]
    finally:
        for team in teams:
            team.end()


def measure_checkpoints_of(
    work: Work, entry: Entry, folder: str, rounds: int, fragments_only: bool = False
) -> tuple[Facts, list[Any]]:
    """Facts of a contender that has trained a little, and the times of its checkpoints as rank 0 has them.

    Raises:
        LaunchError: a process ended before it had measured; its own message stands above.
    """
    team = _Team(work, entry)
    try:
        return team.facts, team.ask("checkpoints", folder, rounds, fragments_only)[0]
    finally:
        team.end()


class _Team:
    """The processes of one contender."""

    def __init__(self, work: Work, entry: Entry) -> None:
        self.entry = entry
        self._ranks: list[tuple[BaseProcess, Connection]] = []
        port = free_port()
        try:
            for rank in range(entry.ranks):
                place = LaunchEnvironment(
                    "torchrun", rank, entry.ranks, rank, entry.ranks, node_name(), "127.0.0.1", port
                )
                self._ranks.append(_start(work, entry, place))
            facts: list[Facts] = self._receive()
        except BaseException:
            self.end()
            raise
        self.facts = replace(facts[0], step_s=max(fact.step_s for fact in facts))

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """What the contender's method gives on each rank."""
        for _, connection in self._ranks:
            connection.send((method, arguments))
        return self._receive()

    def _receive(self) -> list[Any]:
        """One answer of each rank, in whichever order they come: a rank that fails leaves others waiting."""
        answers: dict[int, Any] = {}
        waiting = {connection: rank for rank, (_, connection) in enumerate(self._ranks)}
        while waiting:
            for ready in multiprocessing.connection.wait(list(waiting)):
                assert isinstance(ready, Connection)
                rank = waiting.pop(ready)
                try:
                    answers[rank] = ready.recv()
                except EOFError:
                    kind = "plain form" if self.entry.plain else f"rank {rank} of {self.entry.ranks}"
                    raise LaunchError(f"the process of the {kind} ended; its message stands above") from None
                if isinstance(answers[rank], Exception):
                    raise answers[rank]
        return [answers[rank] for rank in range(len(self._ranks))]

    def end(self) -> None:
        for process, connection in self._ranks:
            connection.close()  # the process ends
            process.join(timeout=5)
            process.kill()
            process.join()


def _start(work: Work, entry: Entry, place: LaunchEnvironment) -> tuple[BaseProcess, Connection]:
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_run, args=(there, work, entry), daemon=True)
    before = dict(os.environ)
    place.export(os.environ)
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    there.close()
    return process, here


def _run(connection: Connection, work: Work, entry: Entry) -> None:
    """Load and train a little, say so, then do what is asked until nobody asks any more."""
    from spe_dist.distributed.context import start_ranks
    from spe_dist.distributed.joining.attendance import close_all
    from spe_dist.distributed.launch import detect
    from spe_dist.errors import SpeError

    try:
        context = start_ranks(detect(), TIMEOUT_S)
        close_all()  # between measurements ranks wait for the command, and leave at once
        from spe_dist.benchmark.pretraining.contenders import Ours, Plain

        work = replace(work, given={**work.given, **entry.settings()})
        contender = (Plain if entry.plain else Ours)(work, context)
        connection.send(contender.warm_up())
    except SpeError as error:  # what a user can get wrong is one line, printed by the command
        with contextlib.suppress(BrokenPipeError):  # another rank has said it
            connection.send(error)
        os._exit(2)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            os._exit(0)  # other ranks need not wait for a process group to end
        connection.send(getattr(contender, method)(*arguments))


def _joined(counts: Sequence[Counts]) -> Counts:
    """Counts of rank 0; the memory of the rank that took most."""
    return replace(counts[0], peak_memory_gib=max(count.peak_memory_gib for count in counts))

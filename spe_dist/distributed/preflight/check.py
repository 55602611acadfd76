"""All checks of a launch, in an order in which what fails first explains what would fail later. Never hangs.

A network or file system that does not answer blocks a process for good, also in calls that take a time limit. So a
thread ends this one at a deadline, with a line on what it was waiting for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from spe_dist.distributed.context import RankContext, start_ranks, stop_ranks
from spe_dist.distributed.launch import LaunchEnvironment, detect, node_name
from spe_dist.distributed.preflight import FEW_RANKS, RANK_S, TIMEOUT_S, nodes
from spe_dist.distributed.preflight.folder import check_shared_folder
from spe_dist.distributed.preflight.lines import Line
from spe_dist.distributed.preflight.network import clock_offsets, measure_bandwidth
from spe_dist.errors import LaunchError

HINTS = {
    "meeting": "a rank is missing, or nodes cannot reach {place}: a firewall, or another network's address",
    "network": "tensors do not get from rank to rank: GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name the network",
    "folder": "the file system of --output does not answer on this node",
}
MEETING_SHARE = 0.75  # of the time until the deadline; what a collective itself has to say is more exact
OTHER_RANKS_WAIT_S = 2.0  # what rank 0 says comes first, and often alone


class Deadline:
    """Ends this process with status 1 and a line unless `cancel` comes first."""

    def __init__(self, seconds: float, say: Callable[[str], None], place: str) -> None:
        self.stage = "meeting"
        self._seconds, self._say, self._place = seconds, say, place
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        hint = HINTS.get(self.stage, "a rank does not answer").format(place=self._place)
        self._say(f"no answer after {self._seconds:g} s: {hint}")
        os._exit(1)


def default_timeout_s(ranks: int) -> float:
    """Seconds in which so many ranks should have finished."""
    return TIMEOUT_S + RANK_S * max(0, ranks - FEW_RANKS)


def check_launch(output: Path | None, timeout_s: float | None = None) -> tuple[list[Line], bool]:
    """The lines (on rank 0; none on the others), and whether there is a problem (on all).

    `timeout_s`: after which this process ends; None: `default_timeout_s`.

    Raises:
        LaunchError: the variables of the launcher contradict each other.
    """
    environment = detect()
    timeout_s = default_timeout_s(environment.ranks) if timeout_s is None else timeout_s
    place = f"{environment.master_addr}:{environment.master_port}"
    deadline = Deadline(timeout_s, lambda text: _say(environment, deadline.stage, text), place)
    try:
        context = start_ranks(environment, MEETING_SHARE * timeout_s)
        lines = [Line("ok", "meeting", f"{context.ranks} ranks met at {place}")] if context.ranks > 1 else []
        lines += _checks(context, output, deadline)
        problem = bool(max(context.max_numbers([float(any(line.level == "problem" for line in lines))])))
        stop_ranks()
        return lines if context.is_main else [], problem
    except LaunchError as error:
        return _failed(environment, deadline.stage, str(error))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = HINTS.get(deadline.stage, "").format(place=place)
        return _failed(environment, deadline.stage, f"{first}; {hint}" if hint else first)
    finally:
        deadline.cancel()


def _checks(context: RankContext, output: Path | None, deadline: Deadline) -> list[Line]:
    deadline.stage = "versions"
    facts = context.all_gather_object(nodes.gather_facts(context.rank, context.device, _existing(output)))
    lines = [nodes.compare_devices(facts), *nodes.compare_versions(facts)]
    deadline.stage = "clocks"
    lines.append(nodes.compare_clocks(clock_offsets(context, node_name())))
    deadline.stage = "network"
    lines += measure_bandwidth(context)
    deadline.stage = "folder"
    if output is None:
        lines.append(Line("warning", "folder", "not looked at: give the run's --output"))
    else:
        lines += check_shared_folder(context, output)
    return lines + nodes.check_free_space(facts)


def _existing(output: Path | None) -> Path | None:
    """The folder, or what there is above it."""
    if output is None:
        return None
    return next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())


def _failed(environment: LaunchEnvironment, topic: str, text: str) -> tuple[list[Line], bool]:
    if environment.rank:
        time.sleep(OTHER_RANKS_WAIT_S)
        text = f"rank {environment.rank} on {environment.node}: {text}"
    return [Line("problem", topic, text)], True


def _say(environment: LaunchEnvironment, topic: str, text: str) -> None:
    (line,), _ = _failed(environment, topic, text)
    print(f"{line.level}  {line.topic}  {line.text}", file=sys.stdout, flush=True)

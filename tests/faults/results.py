"""The file of results, one line a case, and the table that is made of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FAULT_EVERY_S = 300.0  # of the share of time that trained
SURVIVED, FAILED, SKIPPED = "survived", "failed", "skipped"


@dataclass(frozen=True)
class Result:
    """What came of one case. Seconds and steps are of the whole case."""

    case: str  # kind/seed/number
    kind: str
    launcher: str
    setup: str
    outcome: str
    why: str
    faults: int
    moments: tuple[str, ...]
    steps_lost: int
    step_s: float  # of the undisturbed run
    ended_s: tuple[float, ...]  # from each fault until all processes had ended
    resume_s: tuple[float, ...]  # from the start that goes on until its first step
    seconds: float
    commit: str


def read(file: Path) -> list[Result]:
    """All results; a line that a kill has cut short is left out."""
    if not file.exists():
        return []
    found = []
    for line in file.read_text().splitlines():
        try:
            values = json.loads(line)
            found.append(Result(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}))
        except (ValueError, TypeError):
            continue
    return found


def append(file: Path, result: Result) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(result)) + "\n")


def lost_s(result: Result) -> float:
    """Seconds of training that the faults of a case cost: steps trained again, noticing, starting again."""
    return result.steps_lost * result.step_s + sum(result.ended_s) + sum(result.resume_s)


def training_share(seconds_lost: float) -> float:
    """Share of the time that trained where a fault comes every five minutes and costs so much."""
    return max(0.0, 1.0 - seconds_lost / FAULT_EVERY_S)


def table(results: Sequence[Result]) -> list[str]:
    """A table in Markdown, one line a kind of fault, and one for all."""
    lines = [
        "| fault | runs | faults | survived | steps lost | seconds to notice | seconds to resume |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.kind, []).append(result)
    for kind, members in groups.items():
        lines.append(_row(kind, members))
    lines.append(_row("**all**", list(results)))
    return lines


def _row(name: str, results: Sequence[Result]) -> str:
    tried = [result for result in results if result.outcome != SKIPPED]
    if not tried:
        return f"| {name} | 0 | 0 | skipped: {_first_line(results[0].why)} | | | |"
    survived = [result for result in tried if result.outcome == SURVIVED]
    share = f"{len(survived)} of {len(tried)}"
    faults = sum(result.faults for result in tried)
    lost = _middle((result.steps_lost / max(1, len(result.resume_s)) for result in survived if result.resume_s), 1)
    ended = _middle((value for result in survived for value in result.ended_s), 2)
    resumed = _middle((value for result in survived for value in result.resume_s), 2)
    return f"| {name} | {len(tried)} | {faults} | {share} | {lost} | {ended} | {resumed} |"


def _first_line(why: str) -> str:
    """As a cell of a table."""
    return (why.splitlines() or [""])[0].replace("|", "/")


def _middle(values: Iterable[float], digits: int) -> str:
    """Median and largest."""
    found = sorted(values)
    if not found:
        return "-"
    return f"{statistics.median(found):.{digits}f} (at most {found[-1]:.{digits}f})"


def summary(results: Sequence[Result]) -> list[str]:
    """Lines below the table: how many survived, the share of time that trained, what failed and how to repeat it."""
    tried = [result for result in results if result.outcome != SKIPPED]
    survived = [result for result in tried if result.outcome == SURVIVED]
    faults = sum(result.faults for result in tried)
    if not tried:
        return ["nothing was tried"]
    hours = sum(result.seconds for result in tried) / 3600
    lines = [f"{len(survived)} of {len(tried)} runs survived; {faults} faults were put in; {hours:.1f} hours"]
    for launcher in sorted({result.launcher for result in survived}):
        costs = [lost_s(r) / len(r.resume_s) for r in survived if r.launcher == launcher and r.resume_s]
        if costs:
            mean = statistics.fmean(costs)
            lines.append(
                f"{launcher}: a fault costs {mean:.1f} s on the average; at one every five minutes "
                f"{training_share(mean):.1%} of the time trains"
            )
    lines += [f"FAILED {r.case}: {_first_line(r.why)}" for r in tried if r.outcome == FAILED]
    return lines

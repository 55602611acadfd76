"""What a check has found, as a page in Markdown. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spe_dist.benchmark.gpu_check.plan import Plan
from spe_dist.benchmark.gpu_check.record import BEGAN, ENDED, RUN
from spe_dist.utils.tables import markdown

Row = Mapping[str, Any]
NOT_FIGURES = ("stage", "name", "at_s")
NOT_RUN = "not run"


def last_rows(rows: Sequence[Row], stage: str) -> list[Row]:
    """The rows of a stage since it last began."""
    found: list[Row] = []
    for row in rows:
        if row.get("stage") == stage:
            found = [row] if row.get("name") == BEGAN else [*found, row]
    return found


def status_of(rows: Sequence[Row]) -> str:
    """How a stage ended, by its rows."""
    ends = [row for row in rows if row.get("name") == ENDED]
    if ends:
        return str(ends[-1].get("status"))
    return "broken off" if rows else NOT_RUN


def summary(rows: Sequence[Row], plans: Sequence[Plan]) -> str:
    """The page: where and when, how each stage ended, and all results."""
    runs = [row for row in rows if row.get("name") == RUN]
    about = runs[-1] if runs else {}
    lines = ["# Check", "", f"`{about.get('command', '')}`", "", str(about.get("machine", "")), ""]
    table = [["stage", "ended", "seconds", "of", "results", "asks"]]
    details: list[str] = []
    for plan in plans:
        of_stage = last_rows(rows, plan.name)
        results = [row for row in of_stage if row.get("name") not in (BEGAN, ENDED)]
        ended = next((row for row in reversed(of_stage) if row.get("name") == ENDED), {})
        began = next((row for row in of_stage if row.get("name") == BEGAN), {})
        seconds, limit = ended.get("seconds", ""), began.get("limit_s", "")
        table.append([plan.name, status_of(of_stage), str(seconds), str(limit), str(len(results)), plan.asks])
        if results:
            details += ["", f"## {plan.name}", "", *markdown([["", "figures"], *map(_cells, results)], "<")]
    return "\n".join([*lines, *markdown(table, "<<>>><"), *details]) + "\n"


def _cells(row: Row) -> list[str]:
    figures = [f"{name} {_text(value)}" for name, value in row.items() if name not in NOT_FIGURES]
    return [_cell(str(row["name"])), _cell(", ".join(figures))]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name} {_text(part)}' for name, part in value.items())})"
    if isinstance(value, list):
        return f"[{'; '.join(map(_text, value))}]"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

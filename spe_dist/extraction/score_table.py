"""Scores as aligned text, in percent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spe_dist.extraction.matching import METRICS
from spe_dist.extraction.scoring import Counts, Group, Name, Scores

METRIC_NAMES = {"entity": "Entity", "relation": "Relation", "ent_rel": "Ent+Rel"}
NUMBERS = ("precision", "recall", "F1")
COUNTS = ("right", "predicted", "gold")

Intervals = Mapping[Name, tuple[float, float]]


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Columns of equal width: the first to the left, numbers to the right."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def percent(fraction: float, is_empty: bool = False) -> str:
    return "-" if is_empty else f"{100 * fraction:.1f}"


def scores_table(
    scores: Scores, by_type: bool = True, by_group: bool = False, intervals: Intervals | None = None
) -> str:
    """The three scores, then each type's, then the groups; both conventions where symmetric types are named."""
    parts = [_totals(scores, intervals)]
    if scores.with_direction is not None:
        parts.append(_totals(scores.with_direction, None))
    if by_type:
        parts += [_types(scores, metric, intervals) for metric in METRICS if scores.by_type(metric)]
    if by_group:
        parts.append(_groups("entities in the sentence", scores.by_entities))
        parts.append(_groups("words in the sentence", scores.by_length))
    if scores.notices:
        parts.append("\n".join(f"note: {count:,} {reason}" for reason, count in scores.notices.items()))
    return "\n\n".join(parts)


def _totals(scores: Scores, intervals: Intervals | None) -> str:
    rows = [(METRIC_NAMES[metric], (metric, None), getattr(scores, metric)) for metric in METRICS]
    return f"{scores.direction} ({scores.sentences:,} sentences)\n{_counts_table('', rows, intervals)}"


def _types(scores: Scores, metric: str, intervals: Intervals | None) -> str:
    rows = [(kind, (metric, kind), counts) for kind, counts in scores.by_type(metric).items()]
    return _counts_table(f"{METRIC_NAMES[metric]} by type", rows, intervals)


def _counts_table(title: str, rows: Sequence[tuple[str, Name, Counts]], intervals: Intervals | None) -> str:
    lines = [[title, *NUMBERS, *(["95% interval"] if intervals else []), *COUNTS]]
    for label, name, counts in rows:
        numbers = [percent(value, counts.is_empty) for value in (counts.precision, counts.recall, counts.f1)]
        if intervals:
            low, high = intervals[name]
            numbers.append(f"{100 * low:.1f} - {100 * high:.1f}")
        lines.append([label, *numbers, *(f"{count:,}" for count in (counts.tp, counts.predicted, counts.gold))])
    return aligned(lines)


def _groups(title: str, groups: Mapping[str, Group]) -> str:
    """F1 of each group, beside how much there is to find."""
    head = [title, "sentences", *(f"{METRIC_NAMES[metric]} F1" for metric in METRICS), "gold relations"]
    lines = [head]
    for name, group in groups.items():
        f1s = [percent(counts.f1, counts.is_empty) for counts in (group.entity, group.relation, group.ent_rel)]
        lines.append([name, f"{group.sentences:,}", *f1s, f"{group.relation.gold:,}"])
    return aligned(lines)

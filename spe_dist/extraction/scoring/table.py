"""Scores as aligned text, in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spe_dist.extraction.scoring.counts import Counts, Group, Name
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.extraction.scoring.significance import Comparison
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import how_many

METRIC_NAMES = {"entity": "Entity", "relation": "Relation", "ent_rel": "Ent+Rel"}
NUMBERS = ("precision", "recall", "F1")
COUNTS = ("right", "predicted", "gold")

Intervals = Mapping[Name, tuple[float, float]]


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
    return f"{scores.direction}; {how_many(scores.sentences, 'sentence')}\n{_counts_table('', rows, intervals)}"


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
    return "\n".join(aligned(lines))


def _groups(title: str, groups: Mapping[str, Group]) -> str:
    """F1 of each group, beside how much there is to find."""
    head = [title, "sentences", *(f"{METRIC_NAMES[metric]} F1" for metric in METRICS), "gold relations"]
    lines = [head]
    for name, group in groups.items():
        f1s = [percent(counts.f1, counts.is_empty) for counts in (group.entity, group.relation, group.ent_rel)]
        lines.append([name, f"{group.sentences:,}", *f1s, f"{group.relation.gold:,}"])
    return "\n".join(aligned(lines))


def comparison_table(
    comparisons: Mapping[Name, Comparison], names: tuple[str, str] = ("baseline", "predictions"), by_type: bool = True
) -> str:
    """Both systems' F1, the difference with its 95% interval, and the p-value of "there is no difference"."""
    blocks = []
    for title, chosen in _blocks(list(comparisons), by_type):
        lines = [[title, *names, "difference", "95% interval", "p"]]
        for label, name in chosen:
            c = comparisons[name]
            signed = [f"{100 * value:+.1f}" for value in (c.difference, c.low, c.high)]
            lines.append(
                [label, percent(c.a), percent(c.b), signed[0], f"{signed[1]} to {signed[2]}", p_text(c.p_value)]
            )
        blocks.append("\n".join(aligned(lines)))
    return "\n\n".join(blocks)


def p_text(p_value: float) -> str:
    return f"{p_value:.4f}" if p_value < 0.01 else f"{p_value:.2f}"


def _blocks(names: Sequence[Name], by_type: bool) -> list[tuple[str, list[tuple[str, Name]]]]:
    """Title and rows (label, name) of the totals and of each metric's types."""
    blocks: list[tuple[str, list[tuple[str, Name]]]]
    blocks = [("F1", [(METRIC_NAMES[metric], (metric, None)) for metric in METRICS])]
    if by_type:
        for metric in METRICS:
            rows: list[tuple[str, Name]] = [(kind, (m, kind)) for m, kind in names if m == metric and kind is not None]
            blocks += [(f"{METRIC_NAMES[metric]} by type", rows)] if rows else []
    return blocks

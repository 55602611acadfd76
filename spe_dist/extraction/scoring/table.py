"""Scores as text, in per cent: aligned tables, one line, and words where nothing is found.

Scores are fractions of 1 everywhere else; only here, on pages and in logs are they shown with "%".
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from spe_dist.extraction.scoring.ceiling import ceiling_lines
from spe_dist.extraction.scoring.counts import Counts, Group, Name
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.extraction.scoring.significance import Comparison
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import counted, how_many

METRIC_NAMES = {"entity": "Entity", "relation": "Relation", "ent_rel": "Ent+Rel"}
NUMBERS = ("precision", "recall", "F1")
COUNTS = ("right", "predicted", "gold")

Intervals = Mapping[Name, tuple[float, float]]


def percent(fraction: float, is_empty: bool = False) -> str:
    """A fraction as people read it, "64.1%"; a dash where there is nothing to measure."""
    return "-" if is_empty else f"{100 * fraction:.1f}%"


def percent_range(low: float, high: float) -> str:
    """An interval of fractions, "60.2 - 68.0%"."""
    return f"{100 * low:.1f} - {percent(high)}"


def points(difference: float, low: float, high: float) -> tuple[str, str]:
    """A difference of two fractions and its interval, in percentage points: "+1.9", "-0.3 to +4.0"."""
    value, start, end = (f"{100 * number:+.1f}" for number in (difference, low, high))
    return value, f"{start} to {end}"


def p_text(p_value: float) -> str:
    """A p-value: two digits, four where it is below 0.01."""
    return f"{p_value:.4f}" if p_value < 0.01 else f"{p_value:.2f}"


def f1_line(f1s: Mapping[str, float]) -> str:
    """F1 by metric on one line, as logs have it: "F1: Entity 64.1%, Relation 40.0%, Ent+Rel 39.2%".

    Metrics that are not in `f1s` are left out.
    """
    return "F1: " + ", ".join(
        f"{name} {percent(f1s[metric])}" for metric, name in METRIC_NAMES.items() if metric in f1s
    )


def scores_table(
    scores: Scores,
    by_type: bool = True,
    by_group: bool = False,
    intervals: Intervals | None = None,
    metrics: Sequence[str] = METRICS,
) -> str:
    """Precision, recall and F1 in per cent, with counts, as in Tables 2, 8 and 9 of the paper.

    Args:
        by_type: also a table of each metric's types. A metric without a right prediction has a sentence in its place.
        by_group: also F1 by number of entities and by length of the sentences (Figure 5).
        intervals: of F1, by metric and type (`confidence_intervals`), for a column of their own.
        metrics: those that are shown.

    Returns:
        Tables with blank lines between them. Where relation types are named as symmetric, the totals stand there
        twice: without their direction, then with it.
    """
    parts = [_totals(scores, intervals, metrics)]
    if scores.with_direction is not None:
        parts.append(_totals(scores.with_direction, None, metrics))
    said = _nothing_right(scores, metrics)
    if said:
        named = ((" and ".join(METRIC_NAMES[metric] for metric in of_said), what) for what, of_said in said.items())
        parts.append("\n".join(f"{names}: {what}" for names, what in named))
    if by_type:
        shown = [m for m in metrics if scores.by_type(m) and not any(m in of_said for of_said in said.values())]
        parts += [_types(scores, metric, intervals) for metric in shown]
    if by_group:
        parts.append(_groups("entities in the sentence", scores.by_entities))
        parts.append(_groups("words in the sentence", scores.by_length))
    if not scores.ceiling.is_complete:
        parts.append("\n".join(ceiling_lines(scores.ceiling)))
    if scores.notices:
        parts.append("\n".join(f"note: {notice}" for notice in counted(scores.notices)))
    return "\n\n".join(parts)


def _nothing_right(scores: Scores, metrics: Sequence[str]) -> dict[str, list[str]]:
    """What to say of metrics that have gold or predictions but no right prediction, with the metrics it is true of."""
    said: dict[str, list[str]] = {}
    for metric in metrics:
        counts, nouns = (
            scores.total(metric),
            ("entity", "entities") if metric == "entity" else ("relation", "relations"),
        )
        if not counts.tp and not counts.is_empty:
            found = (
                f"{how_many(counts.predicted, *nouns)} predicted, none of them right"
                if counts.predicted
                else ("nothing is predicted")
            )
            has = how_many(counts.gold, *nouns) if counts.gold else "none"
            said.setdefault(f"{found}; the gold has {has}", []).append(metric)
    return said


def _totals(scores: Scores, intervals: Intervals | None, metrics: Sequence[str]) -> str:
    rows = [(METRIC_NAMES[metric], (metric, None), scores.total(metric)) for metric in metrics]
    return f"{scores.direction}; {how_many(scores.sentences, 'sentence')}\n{_counts_table('', rows, intervals)}"


def _types(scores: Scores, metric: str, intervals: Intervals | None) -> str:
    rows = [(kind, (metric, kind), counts) for kind, counts in scores.by_type(metric).items()]
    return _counts_table(f"{METRIC_NAMES[metric]} by type", rows, intervals)


def _counts_table(title: str, rows: Iterable[tuple[str, Name, Counts]], intervals: Intervals | None) -> str:
    lines = [[title, *NUMBERS, *(["95% interval"] if intervals else []), *COUNTS]]
    for label, name, counts in rows:
        numbers = [percent(value, counts.is_empty) for value in (counts.precision, counts.recall, counts.f1)]
        if intervals:
            numbers.append(percent_range(*intervals[name]))
        lines.append([label, *numbers, *(f"{count:,}" for count in (counts.tp, counts.predicted, counts.gold))])
    return "\n".join(aligned(lines))


def _groups(title: str, groups: Mapping[str, Group]) -> str:
    """F1 of each group, beside how much there is to find."""
    lines = [[title, "sentences", *(f"{METRIC_NAMES[metric]} F1" for metric in METRICS), "gold relations"]]
    for name, group in groups.items():
        f1s = [percent(counts.f1, counts.is_empty) for counts in (group.entity, group.relation, group.ent_rel)]
        lines.append([name, f"{group.sentences:,}", *f1s, f"{group.relation.gold:,}"])
    return "\n".join(aligned(lines))


def runs_table(runs: Sequence[Scores], metrics: Sequence[str] = METRICS) -> str:
    """Mean precision, recall and F1 of a system's runs, one a seed; the sample deviation of F1, and F1 of each run."""
    lines = [["", *NUMBERS, "F1 of each run"]]
    for metric in metrics:
        counts = [scores.total(metric) for scores in runs]
        f1s = [c.f1 for c in counts]
        means = [percent(statistics.fmean(v)) for v in ([c.precision for c in counts], [c.recall for c in counts], f1s)]
        means[-1] += f" ± {100 * statistics.stdev(f1s):.1f}" if len(runs) > 1 else ""
        lines.append([METRIC_NAMES[metric], *means, "  ".join(percent(f1) for f1 in f1s)])
    return "\n".join(aligned(lines))


def comparison_table(
    comparisons: Mapping[Name, Comparison], names: tuple[str, str] = ("baseline", "predictions"), by_type: bool = True
) -> str:
    """F1 of two systems, the difference in points with its 95% interval, and the p-value of "there is no difference".

    Args:
        comparisons: of `significance.compare`, by metric and type.
        names: what the columns of the two systems are called.
        by_type: also a table of the types of each metric of which either system finds anything.
    """
    tables = [("F1", [(METRIC_NAMES[metric], comparisons[metric, None]) for metric in METRICS])]
    for metric in METRICS if by_type else ():
        types = [(kind, c) for (of, kind), c in comparisons.items() if of == metric and kind is not None]
        if any(c.a or c.b for _, c in types):
            tables.append((f"{METRIC_NAMES[metric]} by type", types))
    return "\n\n".join(_compared(title, names, rows) for title, rows in tables)


def _compared(title: str, names: Sequence[str], rows: Iterable[tuple[str, Comparison]]) -> str:
    lines = [[title, *names, "difference (points)", "95% interval", "p"]]
    for label, c in rows:
        lines.append([label, percent(c.a), percent(c.b), *points(c.difference, c.low, c.high), p_text(c.p_value)])
    return "\n".join(aligned(lines))

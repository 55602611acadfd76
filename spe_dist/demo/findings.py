"""What a demo shows at its end: what was learned in pre-training, and one sentence with what was found in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spe_dist.utils.tables import aligned


@dataclass(frozen=True)
class Claim:
    """A figure of the evaluation on held-out sentences, and the yardstick that it has to beat (METHOD, Held-out)."""

    label: str
    figure: str
    yardstick: str
    yardstick_label: str
    higher_is_better: bool

    def holds(self, figures: Mapping[str, float]) -> bool:
        value, mark = figures[f"heldout/{self.figure}"], figures[f"heldout/{self.yardstick}"]
        return value > mark if self.higher_is_better else value < mark

    def show(self, value: float) -> str:
        return f"{value:.1%}" if self.higher_is_better else f"{value:.2f}"


CLAIMS = (
    Claim("token boundary, nats a piece", "tbo_nats", "tbo_count_model_nats", "count model", False),
    Claim("span permutation, nats a span", "spo_nats", "spo_entropy", "entropy of the labels", False),
    Claim("contrastive top-1, same layout", "top1_same_layout", "top1_same_layout_chance", "chance", True),
    Claim("contrastive top-1, all sentences", "top1_random", "top1_random_control", "control without words", True),
)


def what_was_learned(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the first and the last evaluation on held-out sentences beside the yardsticks.

    Args:
        evaluations: rows of metrics.jsonl, in order; claims whose figures they lack (objectives that are off) are left
            out.
    """
    first, last = evaluations[0], evaluations[-1]
    rows = [(f"on {last.get('heldout/sentences', 0):,.0f} held-out sentences", *_steps(first, last), "to beat", "")]
    for claim in CLAIMS:
        names = (f"heldout/{claim.figure}", f"heldout/{claim.yardstick}")
        if any(name not in row for name in names for row in (first, last)):
            continue
        values = [claim.show(row[names[0]]) for row in ([first, last] if first is not last else [last])]
        mark = f"{claim.show(last[names[1]])} ({claim.yardstick_label})"
        rows.append((claim.label, *values, mark, "learned" if claim.holds(last) else "not yet"))
    return aligned(rows, "<" + ">" * len(_steps(first, last)) + "<")


def _steps(first: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    return [f"step {row['step']:,}" for row in ([first, last] if first is not last else [last])]


def found_in(records: Iterable[Mapping[str, Any]], sentences: int) -> list[str]:
    """The first sentences in which at least two relations are found, and these, as lines.

    Args:
        records: what `spe predict` wrote, in order.
        sentences: how many to show, at most.
    """
    telling = [record for record in records if len(record["relations"]) > 1]
    lines = [line for record in telling[:sentences] for line in _lines(record)]
    return lines or ["  no sentence among them in which more than one relation is found"]


def _lines(record: Mapping[str, Any]) -> list[str]:
    lines = [f"  {record['text']}"]
    for relation in record["relations"]:
        head, tail = (f"{entity['text']} ({entity['type']})" for entity in _ends(record, relation))
        lines.append(f"      {head}  {relation['type']}  {tail}  {relation['probability']:.0%}")
    return lines


def _ends(record: Mapping[str, Any], relation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [record["entities"][relation[end]] for end in ("head", "tail")]

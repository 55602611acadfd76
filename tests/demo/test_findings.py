"""What the demo shows at its end: claims that the figures bear out, and relations in the words of their sentence."""

from __future__ import annotations

import pytest

from spe_dist.demo.findings import CLAIMS, found_in, what_was_learned

FIRST = {
    "step": 100,
    "heldout/sentences": 320.0,
    "heldout/spo_nats": 1.79,
    "heldout/spo_entropy": 1.78,
    "heldout/top1_same_layout": 0.05,
    "heldout/top1_same_layout_chance": 0.05,
}
LAST = {**FIRST, "step": 400, "heldout/spo_nats": 1.2, "heldout/top1_same_layout": 0.04}


def test_a_figure_counts_as_learned_only_beyond_its_yardstick():
    head, spo, top1 = what_was_learned([FIRST, LAST])
    assert "320 held-out sentences" in head and "step 100" in head and "step 400" in head
    assert spo.split()[-1] == "learned" and "1.79" in spo and "1.20" in spo and "1.78 (entropy of the labels)" in spo
    assert top1.endswith("not yet") and "5.0% (chance)" in top1


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.figure)
def test_a_yardstick_that_is_only_reached_is_not_beaten(claim):
    assert not claim.holds({f"heldout/{claim.figure}": 0.5, f"heldout/{claim.yardstick}": 0.5})


def test_a_run_with_one_evaluation_has_one_column():
    head, *_ = what_was_learned([LAST])
    assert "step 400" in head and head.count("step") == 1


def record(*relations: tuple[int, str, int]) -> dict:
    return {
        "text": "Ada Lind leads Lund Museum in Lund.",
        "entities": [
            {"type": "Person", "text": "Ada Lind"},
            {"type": "Organisation", "text": "Lund Museum"},
            {"type": "Place", "text": "Lund"},
        ],
        "relations": [{"type": t, "head": h, "tail": e, "probability": 0.9} for h, t, e in relations],
    }


def test_sentences_with_several_relations_are_shown_in_words():
    lines = found_in([record((0, "leads", 1)), record((0, "leads", 1), (1, "based_in", 2)), record()], sentences=3)
    assert [line.strip() for line in lines if "Ada Lind leads" in line] == ["Ada Lind leads Lund Museum in Lund."]
    assert "Ada Lind (Person)" in lines[1] and "leads" in lines[1] and "Lund Museum (Organisation)" in lines[1]
    assert "based_in" in lines[2] and "90%" in lines[2]


def test_where_nothing_is_found_it_is_said():
    (line,) = found_in([record((0, "leads", 1))], sentences=3)
    assert line.strip().startswith("no sentence")

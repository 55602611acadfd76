"""What is said about a finished run, from its scores.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spe_dist.finetuning.results import describe_finished

SCORES = {metric: {"f1": 0.5, "gold": 2, "predicted": 2} for metric in ("entity", "relation", "ent_rel")}
DOCUMENT: dict[str, Any] = {"best_epoch": 3, "epochs": 4, "dev": SCORES, "test": None}


def test_a_finished_run_is_described_in_one_line():
    assert describe_finished(Path("RUN"), DOCUMENT) == (
        "RUN is finished: best epoch 3 of 4; dev F1: Entity 50.0%, Relation 50.0%, Ent+Rel 50.0%"
    )


@pytest.mark.parametrize(
    "changed", [{"dev": True}, {"dev": {**SCORES, "entity": False}}, {"best_epoch": "3"}, {"dev": {"entity": {}}}]
)
def test_scores_that_somebody_changed_are_named_as_such(changed):
    assert describe_finished(Path("RUN"), DOCUMENT | changed) == "RUN is finished; its scores.json was changed since"

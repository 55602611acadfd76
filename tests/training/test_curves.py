"""Curves as pictures: what is drawn, and what explains it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

from spe_dist.finetuning import curves as finetuning
from spe_dist.pretraining import curves as pretraining
from spe_dist.training.curves import smooth


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are drawn."""
    drawn: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure: matplotlib.figure.Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return drawn


def pretraining_rows(steps: int) -> list[dict[str, Any]]:
    common = {"kind": "train", "loss": 5.0, "tbo_loss": 3.0, "cspo_loss": 2.0, "contrastive_top1": 0.25}
    rows = [{**common, "step": s, "learning_rate": 1e-3, "queue_fill": min(64, 8 * s)} for s in range(1, steps + 1)]
    figures = {"heldout/tbo_nats": 2.5, "heldout/tbo_count_model_nats": 2.75, "heldout/top1_same_layout": 0.5}
    return [*rows, {"kind": "evaluation", "step": steps, **figures, "heldout/top1_same_layout_control": 0.125}]


def test_smoothing_keeps_straight_lines_and_evens_out_noise() -> None:
    line = [0.5 * i for i in range(200)]
    assert smooth(line) == pytest.approx(line)
    noise = [(-1.0) ** i for i in range(200)]
    assert max(abs(value) for value in smooth(noise)[10:-10]) < 0.2


@pytest.mark.parametrize("steps", [3, 80])
def test_a_pre_training_is_drawn_with_its_yardsticks_in_the_units_of_the_text(
    tmp_path: Path, figures: list[matplotlib.figure.Figure], steps: int
) -> None:
    assert pretraining.draw_curves(tmp_path) is None
    write_rows(tmp_path, pretraining_rows(steps))
    picture = pretraining.draw_curves(tmp_path)
    assert picture is not None and picture.read_bytes().startswith(b"\x89PNG")
    panels = {axes.get_title(): axes for axes in figures[0].axes}
    levels = {line.get_label(): float(line.get_ydata()[0]) for axes in panels.values() for line in axes.lines}
    assert levels["count model, held out"] == 2.75
    assert levels["held out, of the same layout"] == 50.0 and levels["control, same layout"] == 12.5
    assert "of negatives fills" in panels["total loss (nats)"].get_xlabel().replace("\n", " ")
    assert "as set" in panels["learning rate"].get_xlabel()


def test_the_queue_is_shown_as_filling_until_it_no_longer_grows() -> None:
    assert pretraining.queue_filled_at(pretraining_rows(80)[:-1]) == 8
    assert pretraining.queue_filled_at([{"step": 1}, {"step": 2}]) == 0


def test_a_fine_tuning_is_drawn_with_f1_in_per_cent(tmp_path: Path, figures: list[matplotlib.figure.Figure]) -> None:
    assert finetuning.draw_curves(tmp_path) is None
    rows: list[dict[str, Any]] = [
        {"kind": "train", "step": s, "loss": 1.0, "relation_loss": 0.5, "gold_sentences": 1.0 if s < 4 else 0.5}
        for s in range(1, 9)
    ]
    assert finetuning.gold_until(rows) == 3 and finetuning.gold_until(rows[:2]) == 2
    write_rows(tmp_path, [*rows, {"kind": "evaluation", "step": 8, "dev/entity_f1": 0.75}])
    assert finetuning.draw_curves(tmp_path) is not None
    (f1,) = [axes for axes in figures[0].axes if axes.get_title() == "F1 on dev (%)"]
    assert [float(line.get_ydata()[0]) for line in f1.lines] == [75.0]


def test_dollar_signs_in_the_name_of_a_run_begin_no_formula(
    tmp_path: Path, figures: list[matplotlib.figure.Figure]
) -> None:
    folder = tmp_path / r"a $\frac{$"
    folder.mkdir()
    write_rows(folder, pretraining_rows(3))
    assert pretraining.draw_curves(folder) == folder / "curves.png"
    assert figures[0].get_suptitle() == r"Pre-training, a \$\frac{\$"

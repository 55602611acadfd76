"""Tables of experiments: means and deviations by hand, the printed layout, pictures that are drawn."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from spe_dist.errors import DataError
from spe_dist.experiments.file import Experiment, read_experiment
from spe_dist.experiments.picture import draw_curves, draw_table
from spe_dist.experiments.pieces import Cell, Plan
from spe_dist.experiments.plan import make_plan, output_folder
from spe_dist.experiments.record import Record, Requests, write_record
from spe_dist.experiments.report import write_report
from spe_dist.experiments.table import CellScores, lay_out, markdown, read_scores, to_csv

FILE = """
title: Small tables
output: OUT
seeds: [0, 1, 2]
corpora:
  news: {name: News, train: TRAIN, dev: TRAIN, test: TRAIN}
rows:
  bert: {name: BERT, encoder: some-bert}
  random: {name: Random, settings: {tokenizer: some-bert}}
tables:
  main:
    title: Main results
    corpus: news
    rows: [bert, random]
    published: {bert: [87.3, 65.4, null]}
    literature: {"Miwa, 2016": [80.0, null, 50.04]}
  shares: {corpus: news, rows: [bert, random], shares: [10, 100]}
  all: {corpus: news, rows: [random], metrics: prf}
"""

# F1 of entity by row, share and seed; relation is 20 and Ent+Rel 30 below, precision 1 above, recall 1 below.
ENTITY = {
    ("bert", 100): {0: 80.0, 1: 82.0, 2: 87.0},
    ("random", 100): {0: 70.0, 1: 71.0, 2: 72.0},
    ("bert", 10): {0: 50.0, 1: 53.0},
    ("random", 10): {},
}


def scores_of(entity: float) -> dict[str, dict[str, float]]:
    f1 = {"entity": entity, "relation": entity - 20, "ent_rel": entity - 30}
    return {m: {"precision": (x + 1) / 100, "recall": (x - 1) / 100, "f1": x / 100} for m, x in f1.items()}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Experiment, Plan, Requests]:
    """The experiment with the finished runs of ENTITY; dev is 5 above test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "TRAIN").write_text("x")
    (tmp_path / "file.yaml").write_text(FILE)
    experiment = read_experiment(tmp_path / "file.yaml")
    plan = make_plan(experiment)
    requests = Requests(plan, output_folder(experiment))
    for (row, share), by_seed in ENTITY.items():
        for seed, entity in by_seed.items():
            piece = plan.pieces[Cell("news", row, share).piece_id(seed)]
            piece.result_folder.mkdir(parents=True)
            content = {"test": scores_of(entity), "dev": scores_of(entity + 5), "finished": True}
            (piece.result_folder / "scores.json").write_text(json.dumps(content))
            write_record(piece, Record("finished", 1.0, requests.by_id[piece.id]))
    return experiment, plan, requests


def test_means_and_sample_deviations_are_those_worked_out_by_hand(made: tuple) -> None:
    _, plan, requests = made
    scores = read_scores(plan, requests, "test")[Cell("news", "bert", 100)]
    assert scores.mean(("entity", "f1")) == pytest.approx(0.83)
    assert scores.deviation(("entity", "f1")) == pytest.approx(13.0**0.5 / 100)  # (9 + 1 + 16) / 2
    assert scores.mean(("relation", "precision")) == pytest.approx(0.64)
    assert read_scores(plan, requests, "dev")[Cell("news", "bert", 100)].mean(("entity", "f1")) == pytest.approx(0.88)


def test_one_seed_has_no_deviation_and_none_has_no_mean() -> None:
    one = CellScores({0: {("entity", "f1"): 0.5}}, {1: "new"})
    assert one.mean(("entity", "f1")) == 0.5 and one.deviation(("entity", "f1")) is None
    assert CellScores({}, {0: "new"}).mean(("entity", "f1")) is None


def test_a_table_is_printed_as_in_the_paper(made: tuple) -> None:
    experiment, plan, requests = made
    text = markdown(lay_out(experiment, "main", read_scores(plan, requests, "test")))
    assert (
        text
        == """### Main results

| Model      |  Entity F1 (%) | Relation F1 (%) | Ent+Rel F1 (%) | Published F1 (%) |
| ---------- | -------------: | --------------: | -------------: | ---------------: |
| Miwa, 2016 |           80.0 |               - |           50.0 |                  |
| BERT       | **83.0 ± 3.6** |  **63.0 ± 3.6** | **53.0 ± 3.6** |  87.3 / 65.4 / - |
| Random     |     71.0 ± 1.0 |      51.0 ± 1.0 |     41.0 ± 1.0 |                - |

On the News test data, mean ± standard deviation over 3 seeds.
"""
    )


def test_shares_are_groups_and_missing_seeds_are_named(made: tuple) -> None:
    experiment, plan, requests = made
    text = markdown(lay_out(experiment, "shares", read_scores(plan, requests, "dev"), "dev"))
    assert (
        text
        == """### Results on the News dev data

|      | Model  |  Entity F1 (%) | Relation F1 (%) | Ent+Rel F1 (%) | Seeds                   |
| ---- | ------ | -------------: | --------------: | -------------: | ----------------------- |
| 10%  | BERT   |     56.5 ± 2.1 |      36.5 ± 2.1 |     26.5 ± 2.1 | 2 of 3: 2 missing       |
|      | Random |              - |               - |              - | 0 of 3: 0, 1, 2 missing |
| 100% | BERT   | **88.0 ± 3.6** |  **68.0 ± 3.6** | **58.0 ± 3.6** | 3                       |
|      | Random |     76.0 ± 1.0 |      56.0 ± 1.0 |     46.0 ± 1.0 | 3                       |

On the News dev data, mean ± standard deviation over 3 seeds.
"""
    )


def test_precision_recall_and_f1_are_shown_where_a_table_asks_for_them(made: tuple) -> None:
    experiment, plan, requests = made
    layout = lay_out(experiment, "all", read_scores(plan, requests, "test"))
    assert layout.heads[:3] == ("Entity P (%)", "Entity R (%)", "Entity F1 (%)") and len(layout.heads) == 9
    assert layout.lines[0].cells[:3] == ("72.0 ± 1.0", "70.0 ± 1.0", "71.0 ± 1.0")
    assert not layout.lines[0].best


def test_runs_with_other_settings_or_unfinished_are_left_out_and_named(made: tuple) -> None:
    experiment, plan, requests = made
    piece = plan.pieces["rows/bert/news-100/seed-1"]
    write_record(piece, Record("finished", 1.0, requests.by_id[piece.id] | {"settings": {"epochs": 9}}))
    piece = plan.pieces["rows/bert/news-100/seed-2"]
    write_record(piece, Record("failed", 1.0, requests.by_id[piece.id]))
    layout = lay_out(experiment, "main", read_scores(plan, requests, "test"))
    assert layout.lines[1].seeds == "1 of 3: 1 made with other settings; 2 failed"
    assert layout.lines[1].cells == ("80.0", "60.0", "50.0")
    assert not layout.lines[1].best and not layout.lines[2].best  # nothing whole to compare with


def test_the_csv_holds_every_figure_of_every_table(made: tuple) -> None:
    experiment, plan, requests = made
    rows = list(csv.DictReader(io.StringIO(to_csv(experiment, read_scores(plan, requests, "test"), "test"))))
    assert len(rows) == 2 + 4 + 1
    assert {key: rows[2][key] for key in ("table", "corpus", "split", "train_share_percent", "row", "model")} == {
        "table": "shares",
        "corpus": "news",
        "split": "test",
        "train_share_percent": "10",
        "row": "bert",
        "model": "BERT",
    }
    assert (rows[2]["seeds"], rows[2]["missing_seeds"]) == ("0 1", "2")
    assert (rows[0]["entity_f1_mean"], rows[0]["entity_f1_sd"]) == ("83.000", "3.606")
    assert (rows[0]["ent_rel_precision_mean"], rows[3]["entity_f1_mean"]) == ("54.000", "")


def test_pictures_are_drawn_and_curves_only_of_two_points_or_more(made: tuple, tmp_path: Path) -> None:
    experiment, plan, requests = made
    results = read_scores(plan, requests, "test")
    for key in ("main", "shares", "all"):
        draw_table(lay_out(experiment, key, results), tmp_path / "table.png")
        assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    strange = replace(lay_out(experiment, "main", results), title=r"$\frac{$", caption=r"a $ b $^$")
    draw_table(strange, tmp_path / "table.png")  # dollar signs in names begin no formula
    assert draw_curves(experiment, "shares", results, "test", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5_000
    assert not draw_curves(experiment, "main", results, "test", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_report_is_written_for_each_split_also_where_the_data_is_gone(made: tuple, tmp_path: Path) -> None:
    experiment, _, _ = made
    (tmp_path / "TRAIN").unlink()
    lines = write_report(experiment, ["all"], "test")
    assert lines[0].startswith("### Results on the News test data") and len(lines) == 2
    assert "72.0 ± 1.0" in lines[0]
    write_report(experiment, [], "dev")
    folder = tmp_path / "OUT" / "tables"
    assert {path.name for path in (folder / "dev").iterdir()} == {
        *("tables.md", "tables.csv", "main.png", "shares.png", "shares_curves.png", "all.png")
    }
    text = (folder / "tables.md").read_text()
    assert text.startswith("# Small tables\n\n### Main results") and text.count("###") == 3


def test_scores_without_the_split_are_an_error_that_names_the_file(made: tuple) -> None:
    _, plan, requests = made
    path = plan.pieces["rows/bert/news-100/seed-0"].result_folder / "scores.json"
    path.write_text(json.dumps({"dev": scores_of(1.0), "test": None, "finished": True}))
    with pytest.raises(DataError, match=r"scores.json has no scores of test"):
        read_scores(plan, requests, "test")

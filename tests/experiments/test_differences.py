"""Rows of a table against its baselines: means and tests from the predictions that the runs left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from spe_dist.errors import ConfigError
from spe_dist.experiments.differences import _Reader
from spe_dist.experiments.file import read_experiment
from spe_dist.experiments.pieces import Cell
from spe_dist.experiments.plan import make_plan, output_folder
from spe_dist.experiments.record import Record, Requests, write_record
from spe_dist.experiments.report import write_report
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import score
from spe_dist.extraction.scoring.significance import compare_runs

FILE = """
output: OUT
seeds: [0, 1, 2]
corpora:
  news: {name: News, train: GOLD, dev: GOLD, test: GOLD}
rows:
  bert: {name: BERT, encoder: some-bert}
  mlm: {name: MLM, encoder: other-bert}
  spe: {name: SPE, encoder: third-bert}
tables:
  shares: {corpus: news, rows: [bert, mlm, spe], baselines: [bert, mlm], shares: [10, 100]}
  plain: {corpus: news, rows: [bert, spe]}
"""
SENTENCES = 12
RIGHT = {"bert": 4, "mlm": 7, "spe": 10}  # entities of this many sentences are found; a seed adds one


def sentences(found: int) -> list[dict]:
    return [
        {
            "tokens": ["Kim", "of", "Acme"],
            "entities": [{"type": "Peop", "start": 0, "end": 1}] * (number < found)
            + [{"type": "Org", "start": 2, "end": 3}],
            "relations": [],
        }
        for number in range(SENTENCES)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished runs of all rows with all of the data; with 10% BERT has two seeds, SPE another one, MLM none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "GOLD").write_text(json.dumps(sentences(SENTENCES)))
    (tmp_path / "file.yaml").write_text(FILE)
    experiment = read_experiment("file.yaml")
    plan = make_plan(experiment)
    requests = Requests(plan, output_folder(experiment))
    gold = read_corpus("GOLD")
    for row, right in RIGHT.items():
        for share, seeds in ((100, (0, 1, 2)), (10, {"bert": (0, 1), "spe": (1, 2), "mlm": ()}[row])):
            for seed in seeds:
                piece = plan.pieces[Cell("news", row, share).piece_id(seed)]
                piece.result_folder.mkdir(parents=True)
                predictions = piece.result_folder / "predictions_test.json"
                predictions.write_text(json.dumps(sentences(right + seed - (share == 10))))
                scores = score(gold, read_corpus(predictions)).to_json()
                (piece.result_folder / "scores.json").write_text(json.dumps({"test": scores, "finished": True}))
                write_record(piece, Record("finished", 1.0, requests.by_id[piece.id]))
    return tmp_path


def test_each_row_is_compared_with_each_baseline_over_common_seeds(folder: Path) -> None:
    write_report(read_experiment("file.yaml"), [], "test")
    with open("OUT/tables/differences.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "entity"]
    pairs = [(row["train_share_percent"], row["row"], row["baseline"], row["seeds"]) for row in rows]
    assert pairs == [
        *(("10", "spe", "bert", "1"),),
        *(("100", "mlm", "bert", "0 1 2"), ("100", "spe", "bert", "0 1 2"), ("100", "spe", "mlm", "0 1 2")),
    ]
    gold = read_corpus("GOLD")
    runs = {
        row: [
            score(gold, read_corpus(f"OUT/rows/{row}/news-100/seed-{seed}/run/predictions_test.json"))
            for seed in range(3)
        ]
        for row in RIGHT
    }
    expected = compare_runs(runs["mlm"], runs["spe"])["entity", None]
    assert float(rows[-1]["difference"]) == pytest.approx(100 * expected.difference, abs=1e-3)
    assert float(rows[-1]["p_value"]) == pytest.approx(expected.p_value, abs=1e-4)
    assert expected.low <= expected.difference <= expected.high and expected.difference > 0.05
    assert len(METRICS) * len(pairs) == len(Path("OUT/tables/differences.csv").read_text().splitlines()) - 1


def test_the_differences_follow_the_table_that_asks_for_them(folder: Path) -> None:
    lines = write_report(read_experiment("file.yaml"), [], "test")
    assert "| SPE, 100% | MLM  |     3 |" in lines[0] and "p 0." in lines[0] and "bootstrap" in lines[0]
    assert "bootstrap" not in lines[1] and "differences.csv" in lines[-1]


def test_a_table_is_printed_without_tests_where_the_corpus_is_gone(folder: Path) -> None:
    (folder / "GOLD").unlink()
    lines = write_report(read_experiment("file.yaml"), [], "test")
    assert lines[0].startswith("### Results") and "bootstrap" not in lines[0]
    assert lines[-2].startswith("no paired tests of rows: ") and "GOLD" in lines[-2]


def test_a_damaged_config_of_a_run_costs_the_tests_alone(folder: Path) -> None:
    (folder / "OUT/rows/spe/news-100/seed-1/run/config.yaml").write_text("data: [")
    lines = write_report(read_experiment("file.yaml"), [], "test")
    assert lines[0].startswith("### Results") and "bootstrap" not in lines[0]
    assert lines[-2].startswith("no paired tests of rows: SPE, News, seed 1") and "config.yaml" in lines[-2]


def test_a_baseline_is_a_row_of_its_table(folder: Path) -> None:
    path = folder / "file.yaml"
    path.write_text(FILE.replace("baselines: [bert, mlm]", "baselines: [brt]"))
    with pytest.raises(ConfigError, match=r"tables: shares: baselines: there is no 'brt'.*bert"):
        read_experiment(path)
    path.write_text(FILE.replace("baselines: [bert, mlm]", f"baselines: [{'b' * 3000}]"))
    with pytest.raises(ConfigError, match=r"baselines: there is no 'b{20,99}; "):
        read_experiment(path)


def test_gold_is_read_in_the_language_that_a_run_has_taken_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "gold.json").write_text('{"text": "Am 3. Mai kam Ada.", "entities": [[14, 17, "Person"]]}\n')
    found = {"tokens": "Am 3. Mai kam Ada .".split(), "entities": [{"type": "Person", "start": 4, "end": 5}]}
    (tmp_path / "predictions_test.json").write_text(json.dumps([{**found, "relations": []}]))
    (tmp_path / "config.yaml").write_text("data: {language: de}\n")
    piece = SimpleNamespace(
        settings={}, inputs={"test": str(tmp_path / "gold.json")}, result_folder=tmp_path, title="a run"
    )
    assert _Reader(None, "test")._score(piece).entity.f1 == 1

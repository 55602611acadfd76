"""Rows of a table against its baselines: means and tests from the counts that the runs left."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from spe_dist.errors import ConfigError
from spe_dist.experiments.file import read_experiment
from spe_dist.experiments.pieces import Cell
from spe_dist.experiments.plan import make_plan, output_folder
from spe_dist.experiments.record import Record, Requests, write_record
from spe_dist.experiments.report import write_report
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores, score
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


def scores_of(found: int) -> Scores:
    Path("PREDICTED").write_text(json.dumps(sentences(found)))
    return score(read_corpus("GOLD"), read_corpus("PREDICTED"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Finished runs of all rows with all of the data; with 10% BERT has two seeds, SPE another one, MLM none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "GOLD").write_text(json.dumps(sentences(SENTENCES)))
    (tmp_path / "file.yaml").write_text(FILE)
    experiment = read_experiment("file.yaml")
    plan = make_plan(experiment)
    requests = Requests(plan, output_folder(experiment))
    for row, right in RIGHT.items():
        for share, seeds in ((100, (0, 1, 2)), (10, {"bert": (0, 1), "spe": (1, 2), "mlm": ()}[row])):
            for seed in seeds:
                piece = plan.pieces[Cell("news", row, share).piece_id(seed)]
                piece.result_folder.mkdir(parents=True)
                scores = scores_of(right + seed - (share == 10))
                document = {"test": scores.to_json(), "finished": True}
                (piece.result_folder / "scores.json").write_text(json.dumps(document))
                counts = {"test": scores.units.to_json()}
                (piece.result_folder / "unit_counts.json").write_text(json.dumps(counts))
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
    runs = {row: [scores_of(right + seed).units for seed in range(3)] for row, right in RIGHT.items()}
    expected = compare_runs(runs["mlm"], runs["spe"])["entity", None]
    assert float(rows[-1]["difference"]) == pytest.approx(100 * expected.difference, abs=1e-3)
    assert float(rows[-1]["p_value"]) == pytest.approx(expected.p_value, abs=1e-4)
    assert expected.low <= expected.difference <= expected.high and expected.difference > 0.05
    assert len(METRICS) * len(pairs) == len(Path("OUT/tables/differences.csv").read_text().splitlines()) - 1


def test_the_differences_follow_the_table_that_asks_for_them(folder: Path) -> None:
    lines = write_report(read_experiment("file.yaml"), [], "test")
    assert "| SPE, 100% | MLM  |     3 |" in lines[0] and "p 0." in lines[0] and "bootstrap" in lines[0]
    assert "bootstrap" not in lines[1] and "differences.csv" in lines[-1]


def test_neither_corpora_nor_predictions_are_needed(folder: Path) -> None:
    (folder / "GOLD").unlink()
    lines = write_report(read_experiment("file.yaml"), [], "test")
    assert "| SPE, 100% | MLM  |     3 |" in lines[0] and "no paired tests" not in " ".join(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "SPE, News, seed 1: its run has left no "),
        ("{", "unit_counts.json is not valid JSON"),
        ("{}", "unit_counts.json, test: no counts by document or sentence"),
        ('{"test": {"entity": [[1, 1, 1]], "relation": [], "ent_rel": []}}', "no counts by document or sentence"),
        ('{"test": {"entity": [[1, 1]], "relation": [[0, 0, 0]], "ent_rel": [[0, 0, 0]]}}', "[1, 1] is not"),
        ('{"test": {"entity": [[1, 1, -1]], "relation": [[0, 0, 0]], "ent_rel": [[0, 0, 0]]}}', "[1, 1, -1] is not"),
        ('{"test": {"entity": [[1, 1, 1]], "relation": [[0, 0, 0]], "ent_rel": [[0, 0, 0]]}}', "same gold"),
    ],
)
def test_counts_that_are_missing_or_damaged_cost_the_tests_alone(folder: Path, content: str | None, said: str) -> None:
    path = folder / "OUT/rows/spe/news-100/seed-1/run/unit_counts.json"
    path.unlink() if content is None else path.write_text(content)
    lines = write_report(read_experiment("file.yaml"), [], "test")
    assert lines[0].startswith("### Results") and "bootstrap" not in lines[0]
    assert lines[-2].startswith("no paired tests of rows: ") and said in lines[-2]


def test_a_baseline_is_a_row_of_its_table(folder: Path) -> None:
    path = folder / "file.yaml"
    path.write_text(FILE.replace("baselines: [bert, mlm]", "baselines: [brt]"))
    with pytest.raises(ConfigError, match=r"tables: shares: baselines: there is no 'brt'.*bert"):
        read_experiment(path)
    path.write_text(FILE.replace("baselines: [bert, mlm]", f"baselines: [{'b' * 3000}]"))
    with pytest.raises(ConfigError, match=r"baselines: there is no 'b{20,99}; "):
        read_experiment(path)

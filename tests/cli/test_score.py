"""spe score on small files of several formats."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from project import ROOT

from spe_dist.cli import score

COMMAND = [sys.executable, "-m", "spe_dist", "score"]

SPERT = [
    {
        "tokens": ["Kim", "of", "Acme", "lives", "in", "Oslo"],
        "entities": [
            {"type": "Peop", "start": 0, "end": 1},
            {"type": "Org", "start": 2, "end": 3},
            {"type": "Loc", "start": 5, "end": 6},
        ],
        "relations": [{"type": "Work_For", "head": 0, "tail": 1}, {"type": "Live_In", "head": 0, "tail": 2}],
    },
    {"tokens": ["Nothing", "here"], "entities": [], "relations": []},
]
DYGIE = {
    "doc_key": "one",
    "sentences": [sentence["tokens"] for sentence in SPERT],
    "ner": [[[0, 0, "Peop"], [2, 2, "Org"]], []],
    "relations": [[[2, 2, 0, 0, "Work_For"]], []],
}


@pytest.fixture
def files(tmp_path):
    gold, predictions = tmp_path / "gold.json", tmp_path / "predictions.jsonl"
    gold.write_text(json.dumps(SPERT))
    predictions.write_text(json.dumps(DYGIE) + "\n")
    return gold, predictions


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def test_gold_and_predictions_may_have_different_formats(files):
    done = run("--gold", files[0], "--predictions", files[1], "--json")
    numbers = json.loads(done.stdout)
    assert (numbers["entity"]["tp"], numbers["entity"]["predicted"], numbers["entity"]["gold"]) == (2, 2, 3)
    assert (numbers["relation"]["tp"], numbers["relation"]["predicted"], numbers["relation"]["gold"]) == (0, 1, 2)
    assert numbers["files"]["predictions"]["format"] == "dygie"
    low, high = numbers["entity"]["f1_interval"]
    assert 0 <= low <= numbers["entity"]["f1"] <= high <= 1
    assert "comparison" not in numbers


def test_text_states_the_convention_and_shows_both_where_a_type_is_symmetric(files):
    plain = run("--gold", files[0], "--predictions", files[1], "--by")
    assert plain.returncode == 0, plain.stderr
    assert "relations with direction (the default); 2 sentences" in plain.stdout
    assert "words in the sentence" in plain.stdout and "95% interval" in plain.stdout
    both = run("--gold", files[0], "--predictions", files[1], "--symmetric", " Work_For,", "--bootstrap", "0").stdout
    assert "but Work_For without" in both and "(the default)" in both and "interval" not in both
    relation_lines = [line.split() for line in both.splitlines() if line.startswith("Relation  ")]
    assert [line[-3] for line in relation_lines] == ["1", "0"]


def test_a_baseline_is_tested_against_the_predictions(files):
    done = run("--gold", files[0], "--predictions", files[0], "--baseline", files[1], "--json", "--bootstrap", "50")
    compared = json.loads(done.stdout)["comparison"]
    assert (compared["relation"]["baseline_f1"], compared["relation"]["f1"]) == (0.0, 1.0)
    assert compared["relation"]["difference"] == 1.0 and 0 < compared["relation"]["p_value"] <= 1
    assert compared["ent_rel_by_type"]["Live_In"]["f1"] == 1.0
    text = run("--gold", files[0], "--predictions", files[0], "--baseline", files[1]).stdout
    assert "Paired test" in text and "+100.0" in text


def test_several_files_are_seeds_whose_means_are_compared(files):
    both = [
        "--gold",
        files[0],
        "--predictions",
        files[0],
        files[0],
        "--baseline",
        files[1],
        files[0],
        "--bootstrap",
        "99",
    ]
    text = run(*both).stdout
    assert "predictions, mean of 2 runs" in text and "baseline, mean of 2 runs" in text
    assert "Difference of the means; runs and" in text
    row = next(
        line.split() for line in text.splitlines() if line.startswith("Relation") and "±" in line and "50.0%" in line
    )
    assert row[-2:] == ["0.0%", "100.0%"] and "± 70.7" in " ".join(row)  # of 0 and 100
    numbers = json.loads(run(*both, "--json").stdout)
    assert numbers["comparison"]["relation"]["baseline_f1"] == 0.5
    assert [run["entity"]["tp"] for run in numbers["baseline"]] == [2, 3]
    assert list(numbers["files"]) == ["gold", "predictions 1", "predictions 2", "baseline 1", "baseline 2"]
    alone = run("--gold", files[0], "--predictions", files[0], files[1])
    assert "mean of 2 runs" in alone.stdout and "baseline" not in alone.stdout
    done = run("--gold", files[0], "--predictions", files[0], files[1], "--baseline", files[1])
    assert done.returncode == 2 and "--predictions has 2 files and --baseline 1" in done.stderr
    done = run("--gold", files[0], "--predictions", files[0], files[1], "--by")
    assert done.returncode == 2 and "--by shows the groups of one file" in done.stderr


def test_misaligned_files_are_a_clear_error(files, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps([SPERT[0]]))
    done = run("--gold", files[0], "--predictions", other)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "has 1 sentence but" in done.stderr
    other.write_text(json.dumps([SPERT[0], {**SPERT[1], "tokens": ["Nothing", "there"]}]))
    done = run("--gold", files[0], "--predictions", other)
    assert done.returncode == 2 and "sentence 2" in done.stderr and "'here' in gold and is 'there'" in done.stderr


def test_unknown_symmetric_types_and_options_are_errors(files):
    done = run("--gold", files[0], "--predictions", files[1], "--symmetric", "Work_for")
    assert done.returncode == 2 and "'Work_for' is not a relation type" in done.stderr and "Work_For" in done.stderr
    done = run("--gold", files[0], "--prediction", files[1])
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    done = run("--gold", files[0], "--predictions", files[0].parent / "missing.json")
    assert done.returncode == 2 and "missing.json" in done.stderr


def test_scoring_needs_neither_torch_nor_a_model():
    code = "import sys, spe_dist.cli.score; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_with_gold_entities_relations_alone_are_scored_and_other_entities_are_refused(files, tmp_path, capsys):
    gold, other = files
    same = tmp_path / "same.json"
    same.write_text(json.dumps([{**SPERT[0], "relations": SPERT[0]["relations"][:1]}, SPERT[1]]))
    assert score.main(["--gold", str(gold), "--predictions", str(same), "--gold_entities", "--bootstrap", "0"]) == 0
    printed = capsys.readouterr().out
    assert "relations between gold entities" in printed and "Entity" not in printed
    assert [line.split()[1:3] for line in printed.splitlines() if line.startswith("Ent+Rel  ")] == [["100.0%", "50.0%"]]
    assert score.main(["--gold", str(gold), "--predictions", str(same), "--gold_entities", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gold_entities"] is True
    assert score.main(["--gold", str(gold), "--predictions", str(other), "--gold_entities"]) == 2
    message = capsys.readouterr().err
    assert "sentence 1 " in message and "entity 'Loc' at words 5 to 6 is missing from the predictions" in message
    extra = tmp_path / "extra.json"
    extra.write_text(json.dumps([SPERT[0], {**SPERT[1], "entities": [{"type": "X", "start": 0, "end": 1}]}]))
    assert score.main(["--gold", str(gold), "--predictions", str(extra), "--gold_entities"]) == 2
    assert "sentence 2 " in (message := capsys.readouterr().err) and "is none of the gold" in message
    assert "spe predict --entities given --format corpus" in message

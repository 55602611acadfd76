"""The list of plausible bugs (`make mutants`) stays true while the code moves, and its runner tells caught from not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from project import ROOT

from tools import mutants
from tools.mutants import Mutant, Outcome, read_mutants, report

MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug)
def test_every_bug_still_applies_and_its_tests_are_there(mutant):
    mutated = mutant.applied_to((ROOT / mutant.file).read_text())
    compile(mutated, mutant.file, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), f"{mutant.bug}: {test}"
        assert not name or re.search(rf"def {re.escape(name.partition('[')[0])}\(", (ROOT / path).read_text()), test


def test_the_list_covers_what_training_and_scoring_rest_on():
    files = {mutant.file for mutant in MUTANTS}
    assert {path for path in FILES_THAT_NEED_BUGS if not (ROOT / path).is_file()} == set()
    assert set(FILES_THAT_NEED_BUGS) <= files
    assert len(MUTANTS) >= 100


FILES_THAT_NEED_BUGS = [
    "spe_dist/data/batches/corruption.py",
    "spe_dist/data/batches/order.py",
    "spe_dist/data/text/lines.py",
    "spe_dist/distributed/checkpoint.py",
    "spe_dist/extraction/predicting/text_input.py",
    "spe_dist/extraction/scoring/matching.py",
    "spe_dist/extraction/scoring/scores.py",
    "spe_dist/extraction/scoring/significance.py",
    "spe_dist/finetuning/resume.py",
    "spe_dist/moco/average.py",
    "spe_dist/moco/encoder.py",
    "spe_dist/moco/queue.py",
    "spe_dist/pretraining/contrast.py",
    "spe_dist/pretraining/objectives.py",
    "spe_dist/pretraining/resume.py",
    "spe_dist/pretraining/step.py",
    "spe_dist/training/resume.py",
]


def test_an_entry_whose_text_has_moved_names_itself():
    mutant = MUTANTS[0]
    for moved in (replace(mutant, old="no such text"), replace(mutant, old="e"), replace(mutant, new=mutant.old)):
        with pytest.raises(ValueError, match=re.escape(f"'{mutant.bug}' does not fit {mutant.file}")):
            moved.applied_to((ROOT / mutant.file).read_text())


@pytest.fixture
def small_project(tmp_path, monkeypatch):
    """A project of one function and one test, in place of this one."""
    (tmp_path / "adding.py").write_text("def add(a, b):\n    total = a + b\n    return total\n")
    (tmp_path / "test_adding.py").write_text(
        "import time\nfrom adding import add\n\n"
        "def test_add():\n    if add(1, 1) == 3:\n        time.sleep(600)\n    assert add(0, 2) == 2\n"
    )
    mutants._SERVER.set_forkserver_preload(["pytest", "_hypothesis_pytestplugin", "pytest_timeout"])
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "copy_project", lambda folder: _copy(tmp_path, folder))
    return tmp_path


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.glob("*.py"):
        (target / path.name).write_text(path.read_text())


def bug(name, new, old="a + b"):
    return Mutant(name, "adding.py", old, new, ("test_adding.py",))


def test_bugs_are_caught_by_a_test_that_fails_or_does_not_end(small_project):
    entries = [bug("wrong", "a - b"), bug("unseen", "b + a"), bug("endless", "a + b + (a == b)")]
    outcomes = list(mutants.try_all(entries, workers=2, time_limit_s=1.5))
    assert [(outcome.mutant.bug, outcome.is_caught) for outcome in outcomes] == [
        ("wrong", True),
        ("unseen", False),
        ("endless", True),
    ]
    assert outcomes[0].how == "test_adding.py::test_add"


@pytest.mark.parametrize(
    ("before", "then", "words"),
    [(0, 4, "'wrong': its tests test_adding.py cannot be run\nprinted"), (1, 1, "test_adding.py does not pass")],
)
def test_tests_that_cannot_run_or_fail_without_a_bug_are_an_error(small_project, monkeypatch, before, then, words):
    statuses = iter([before, then])
    monkeypatch.setattr(mutants, "run_tests", lambda *_: (next(statuses), "printed"))
    with pytest.raises(ValueError, match=words):
        list(mutants.try_all([bug("wrong", "a - b")], workers=1, time_limit_s=1.5))


@pytest.mark.parametrize(
    ("caught", "reasons", "is_good", "words"),
    [
        (100, {}, True, "100 of 100"),
        (96, {96: "equal", 97: "equal", 98: "equal", 99: "equal"}, True, "survives: bug 96: equal"),
        (94, {number: "equal" for number in range(94, 100)}, False, "94.0%"),
        (99, {}, False, "SURVIVES WITHOUT A REASON: bug 99"),
        (100, {5: "equal"}, False, "CAUGHT NOW: bug 5"),
    ],
)
def test_survivors_need_a_reason_and_are_few(caught, reasons, is_good, words, capsys):
    outcomes = [
        Outcome(
            Mutant(f"bug {number}", "file", "old", "new", ("test",), reasons.get(number, "")), number < caught, "", 1
        )
        for number in range(100)
    ]
    assert report(outcomes) is is_good
    assert words in capsys.readouterr().out

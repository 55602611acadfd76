"""The table of results: what is counted, what a fault costs, and how a failure is repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.__main__ import MARKS, case_ids, described, kinds_with, write_report
from tests.faults.case import CaseId
from tests.faults.kinds import KINDS
from tests.faults.results import FAILED, SKIPPED, SURVIVED, Result, append, lost_s, read, summary, table, training_share

GOOD = Result(
    case="a rank is killed: saving/7/3",
    kind="a rank is killed: saving",
    launcher="fork",
    setup="pretrain 2 ranks ZeRO-2",
    outcome=SURVIVED,
    why="",
    faults=1,
    moments=("kill rank 1 at Checkpoints.save 2",),
    steps_lost=2,
    step_s=0.5,
    ended_s=(1.0,),
    resume_s=(4.0,),
    seconds=9.0,
    commit="abc",
)


def test_results_are_read_as_written_and_a_line_that_is_cut_short_is_left_out(tmp_path):
    file = tmp_path / "results.jsonl"
    other = replace(GOOD, outcome=FAILED, why="row of step 3 differs\nmore")
    for result in (GOOD, other):
        append(file, result)
    with file.open("a") as stream:
        stream.write(file.read_text()[:50])
    assert read(file) == [GOOD, other]
    assert read(tmp_path / "none") == []


def test_the_table_has_a_line_for_each_kind_and_one_for_all():
    failed = replace(GOOD, outcome=FAILED, why="another loss")
    skipped = replace(GOOD, kind="the disk is full", outcome=SKIPPED, why="needs root\nand more | lines", faults=0)
    lines = table([GOOD, failed, replace(GOOD, steps_lost=4), skipped])
    assert lines[2] == (
        "| a rank is killed: saving | 3 | 3 | 2 of 3 | 3.0 (at most 4.0) | 1.00 (at most 1.00) | 4.00 (at most 4.00) |"
    )
    assert lines[3].startswith("| the disk is full | 0 | 0 | skipped: needs root |")
    assert lines[-1].startswith("| **all** | 3 | 3 | 2 of 3 |")


def test_what_a_fault_costs_is_steps_trained_again_the_time_to_notice_and_to_start():
    assert lost_s(GOOD) == 2 * 0.5 + 1.0 + 4.0
    assert training_share(6.0) == pytest.approx(0.98)
    assert training_share(400.0) == 0.0
    assert "fork: a fault costs 6.0 s on the average; at one every five minutes 98.0% of the time trains" in summary(
        [GOOD]
    )
    assert summary([]) == ["nothing was tried"]


def test_a_failure_says_how_it_is_repeated():
    failed = replace(GOOD, outcome=FAILED, why="another loss")
    assert "run --case 'a rank is killed: saving/7/3'" in described(failed)
    assert "FAILED a rank is killed: saving/7/3: another loss" in summary([GOOD, failed])


def test_cases_come_in_turn_and_are_named_by_kind_seed_and_number():
    kinds = kinds_with(["killed: s"])
    assert len(kinds) == 3 and set(kinds) < set(KINDS)
    ids = case_ids(7, kinds)
    first = [next(ids) for _ in range(4)]
    assert [str(case) for case in first] == [*(f"{name}/7/0" for name in kinds), f"{kinds[0]}/7/1"]
    assert CaseId.parse(str(first[3])) == first[3]


def test_the_page_gets_the_table_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    for _ in range(2):
        write_report(page, [GOOD])
    text = page.read_text()
    assert text.startswith(f"before\n{MARKS[0]}\n\n| fault |") and text.endswith(f"\n\n{MARKS[1]}\nafter\n")
    assert "- 1 of 1 runs survived" in text and "old" not in text

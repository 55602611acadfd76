"""What a check prints at its end, and what of it survives."""

from __future__ import annotations

import json

import pytest

from spe_dist.benchmark.gpu_check.plan import STAGES, chosen
from spe_dist.benchmark.gpu_check.record import MARK, Record, give, parse, read_rows
from spe_dist.benchmark.gpu_check.summary import summary
from spe_dist.errors import ConfigError


def row(stage, name, **figures):
    return {"stage": stage, "name": name, "at_s": 1.0, **figures}


def test_the_page_has_every_stage_its_end_and_its_results():
    rows = [
        row("", "check", command="gpu_check.py OUT", machine="2030-01-01, a GPU"),
        row("machine", "stage began", limit_s=20.0),
        row("machine", "copy on the device", gb_per_s=4321.0),
        row("machine", "spe doctor", problems=["a | b"]),
        row("machine", "stage ended", status="done", seconds=12.0),
        row("float16", "stage began", limit_s=45.0),
        row("float16", "a run", learned=True, phases_ms={"query": 3.25}),
    ]
    text = summary(rows, STAGES[:3])
    assert "`gpu_check.py OUT`" in text and "2030-01-01, a GPU" in text
    cells = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "done" in cells["machine"] and "12.0" in cells["machine"] and "20.0" in cells["machine"]
    assert "broken off" in cells["float16"] and "not run" in cells["tests"]
    assert "gb_per_s 4,321" in text and r"problems [a \| b]" in text
    assert "learned True, phases_ms (query 3.25)" in text


def test_the_page_has_the_newest_results_of_each_stage():
    old = [row("parts", "stage began"), row("parts", "old figure", ms=1), row("parts", "stage ended", status="done")]
    new = [row("parts", "stage began"), row("parts", "new figure", ms=2), row("parts", "stage ended", status="failed")]
    text = summary([*old, *new], chosen(["parts"]))
    assert "new figure" in text and "old figure" not in text and "failed" in text


def test_results_are_added_to_those_that_are_there(tmp_path):
    for number in range(2):
        record = Record(tmp_path)
        record.add("parts", {"name": f"figure {number}"})
        record.close()
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"stage": "parts", "na')  # the machine was lost
    assert [found["name"] for found in read_rows(tmp_path)] == ["figure 0", "figure 1"]


def test_figures_are_rounded_and_what_is_no_number_is_text(capsys):
    give("a figure", ms=1.23456789, share=float("nan"), phases={"query": 1}, count=123456789)
    printed = capsys.readouterr().out
    assert parse(printed.strip()) == {
        "name": "a figure",
        "ms": 1.235,
        "share": "nan",
        "phases": {"query": 1},
        "count": 123456789,
    }
    assert json.loads(printed.removeprefix(MARK))["ms"] == 1.235


@pytest.mark.parametrize("line", ["", "result", "results: {}", " result: {}", '{"name": "a"}'])
def test_other_lines_are_no_results(line):
    assert parse(line) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"ms": 1}', '{"name": 3}'])
def test_what_looks_like_a_result_and_is_none_is_said(text):
    assert parse(f"result: {text}") == {"name": "unreadable result", "text": text}


def test_stages_are_chosen_by_name_in_their_own_order():
    assert [plan.name for plan in chosen(["parts", "machine"])] == ["machine", "parts"]
    assert chosen([]) == list(STAGES)
    with pytest.raises(ConfigError, match="--only profil: there is no such stage; did you mean 'profile'"):
        chosen(["profil"])


def test_all_stages_together_fit_into_ten_minutes():
    assert sum(plan.limit_s for plan in STAGES) <= 570

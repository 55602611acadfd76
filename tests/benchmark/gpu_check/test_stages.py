"""The stages of a check: what they make of what they see, and all of them in small."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
import traceback

import pytest
import torch
from project import ROOT

from spe_dist.benchmark.gpu_check.commands import Task, reason, run_logged
from spe_dist.benchmark.gpu_check.plan import STAGES
from spe_dist.benchmark.gpu_check.record import parse, read_rows
from spe_dist.benchmark.gpu_check.stages import parts, profile, throughput
from spe_dist.benchmark.gpu_check.stages.gpu_tests import files_of_gpu_tests, read_report
from spe_dist.benchmark.gpu_check.stages.throughput import figures_of
from spe_dist.benchmark.gpu_check.stages.timing import milliseconds
from spe_dist.benchmark.gpu_check.stages.trainings import summary, unlike

STAGES_PACKAGE = "spe_dist.benchmark.gpu_check.stages"


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path, tmp_path, tmp_path, limit_s=60.0, small=True, on_gpu=False)


def printed_results(capsys):
    rows = [parse(line) for line in capsys.readouterr().out.splitlines()]
    return {row["name"]: row for row in rows if row}


def test_time_in_which_any_kernel_runs_is_the_union_of_their_times():
    events = [
        {"ph": "X", "cat": "kernel", "name": "product", "ts": 100.0, "dur": 50.0},
        {"ph": "X", "cat": "kernel", "name": "sum", "ts": 120.0, "dur": 10.0},  # on another stream
        {"ph": "X", "cat": "gpu_memcpy", "name": "copy", "ts": 140.0, "dur": 30.0},
        {"ph": "X", "cat": "kernel", "name": "product", "ts": 1000.0, "dur": 20.0},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 0.0, "dur": 5000.0},
        {"ph": "M", "name": "process_name"},
    ]
    kernels, busy_ms = profile.read_trace(events)
    assert busy_ms == pytest.approx(0.09)
    assert [(k.name, k.calls, k.ms) for k in kernels] == [("product", 2, 0.07), ("copy", 1, 0.03), ("sum", 1, 0.01)]
    lines = profile.table(kernels, steps=2)
    assert lines[2].split() == ["0.035", "63.6%", "1.0", "35.0", "product"]


def test_the_trace_of_torchs_profiler_is_read(monkeypatch):
    monkeypatch.setattr(profile, "ON_GPU", ("cpu_op",))  # the same form, of what there is here
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            torch.ones(64, 64) @ torch.ones(64, 64)
    kernels, busy_ms = profile.read_trace(profile.events_of(profiler))
    calls = {kernel.name: kernel.calls for kernel in kernels}
    assert calls["aten::mm"] == 3 and calls["aten::ones"] == 6
    assert 0 < busy_ms < sum(kernel.ms for kernel in kernels)  # operations inside others count once


def test_all_but_the_dearest_kernels_are_one_line():
    lines = profile.table([profile.Kernel(f"kernel {i}", 1, 1.0) for i in range(100)], steps=1)
    assert len(lines) == 2 + 30 + 1 and lines[-1].split() == ["70.000", "70.0%", "(70", "others)"]


def test_a_wait_is_counted_at_the_place_in_training_that_waits():
    def frames(*places):
        return [traceback.FrameSummary(name, line, "f") for name, line in places]

    ours = ("/x/spe_dist/pretraining/step.py", 10)
    theirs = ("/x/site-packages/deepspeed/runtime/engine.py", 20)
    outer = ("/x/spe_dist/benchmark/gpu_check/profile.py", 1)
    assert profile.place_of(frames(outer, ours), *ours) == "spe_dist/pretraining/step.py:10"
    assert profile.place_of(frames(outer, ours, theirs), *theirs) == (
        "spe_dist/pretraining/step.py:10 (in deepspeed/runtime/engine.py:20)"
    )
    assert profile.place_of(frames(outer, theirs), *theirs) == "deepspeed/runtime/engine.py:20"


def test_waits_are_counted_by_torchs_warnings(monkeypatch):
    import warnings

    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def step():
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", UserWarning, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)

    waits = profile.count_waits(step)
    assert modes == ["warn", "default"]
    assert list(waits.values()) == [3] and "test_stages.py" in next(iter(waits))


@pytest.mark.filterwarnings("ignore")
def test_parts_are_measured_alone(task, capsys):
    assert parts.check_parts(task)
    found = printed_results(capsys)
    assert {"contrast, products in tf32", "contrast, one matrix of scores", "average, by itself"} <= set(found)
    assert {"attention at 8 tokens", "attention at 16 tokens", "optimizer, one vector", "encoder in float32"} <= set(
        found
    )
    times = [value for row in found.values() for name, value in row.items() if name.endswith("ms")]
    assert len(times) > 15 and all(0 < value < 10_000 for value in times)


def test_a_part_that_fails_leaves_the_others_their_time(task, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(parts, "measure_attention", fail)
    assert not parts.check_parts(task)
    found = printed_results(capsys)
    assert found["attention"]["failed"] == "RuntimeError: no such kernel" and "optimizer, one vector" in found


def test_a_time_is_the_median_of_calls():
    calls = []
    assert 0 <= milliseconds(lambda: calls.append(1), torch.device("cpu"), seconds=0.001) < 5
    assert len(calls) >= 6


def test_on_a_gpu_the_time_is_between_events_of_its_own_clock(monkeypatch):
    class Event:
        clock = 0.0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = Event.clock

        def synchronize(self):
            pass

        def elapsed_time(self, later):
            return later.at - self.at

    def call():
        Event.clock += 7.0 if Event.clock < 100 else 5.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert milliseconds(call, torch.device("cuda"), seconds=0.05) == 5.0


def test_ways_without_time_are_left_out_and_are_no_failure(task, capsys, monkeypatch):
    asked = []

    def run_spe(task, *arguments, limit_s):
        asked.append(arguments)
        return 1, "error: no such thing"

    monkeypatch.setattr(throughput, "run_spe", run_spe)
    monkeypatch.setattr(throughput, "LEAST_S", 1_000.0)
    assert throughput.check_throughput(task) and asked == []
    assert {row["left_out"] for row in printed_results(capsys).values()} == {"no time is left"}
    monkeypatch.setattr(throughput, "LEAST_S", 1.0)
    assert not throughput.check_throughput(task) and len(asked) == len(throughput.ON_CPU)
    assert {row["failed"] for row in printed_results(capsys).values()} == {"exit status 1: error: no such thing"}


def test_a_run_that_goes_on_otherwise_is_seen():
    rows = [
        {
            "step": n,
            "applied": True,
            "loss_scale": 8.0,
            "learning_rate": 0.1,
            "queue_fill": n,
            "masked_pieces": 5,
            "loss": 3.0,
        }
        for n in (1, 2)
    ]
    assert unlike(rows, rows) == []
    assert unlike(rows, [rows[0], {**rows[1], "loss": 3.02}]) == []  # within what the order of sums does
    assert unlike(rows, [rows[0], {**rows[1], "loss": 3.1}]) == ["step 2: loss 3.0000 and 3.1000"]
    assert unlike(rows, [rows[0], {**rows[1], "queue_fill": 0}]) == ["step 2: queue_fill"]
    assert unlike(rows, rows[:1]) == ["1 steps in place of 2"]


def test_a_run_has_learned_where_losses_fall_and_updates_are_applied():
    def run(losses, applied=True):
        rows = [{"tbo_loss": loss, "applied": applied, "step_s": 0.01, "loss_scale": 1.0} for loss in losses]
        return summary(rows)

    figures, learned = run([5.0] * 10 + [3.0] * 10)
    assert learned and (figures["tbo_loss_first"], figures["tbo_loss_last"]) == (5.0, 3.0)
    assert figures["ms_a_step"] == 10.0
    assert not run([3.0] * 10 + [5.0] * 10)[1]
    assert not run([5.0] * 10 + [3.0] * 10, applied=False)[1]
    assert not run([5.0] * 10 + [float("nan")] * 10)[1]


def test_a_benchmark_is_kept_by_contender():
    def contender(plain, rates):
        phases = {"query": {"seconds": 0.2, "cpu_s": 1.0}, "engine": {"seconds": 0.1, "cpu_s": 1.0}}
        blocks = [
            {"steps": 2, "per_second": rate, "share": 0.5, "spent": {"seconds": 0.3}, "phases": phases}
            for rate in rates
        ]
        return {"plain": plain, "blocks": blocks, "counts": {"peak_memory_gib": 1.5, "launches": {"query": 400}}}

    ratios = {"a / b": {"by_time": {"median": 2.0, "low": 1.0, "high": 3.0}}}
    found = figures_of("float16", {"contenders": [contender(False, [8, 10]), contender(True, [4])], "ratios": ratios})
    assert found["float16"]["sentences_per_s"] == 9 and found["float16"]["step_ms"] == pytest.approx(150)
    assert found["float16"]["phases_ms"] == {"query": 100.0, "engine": 50.0}
    assert found["float16: plain form"]["sentences_per_s"] == 4
    assert found["float16: ratio"] == {"times_as_fast": 2.0}


def test_tests_are_counted_and_those_that_fail_say_why(tmp_path):
    file = tmp_path / "tests.xml"
    file.write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/><testcase classname="a" name="bad">'
        '<failure message="assert 1 == 2&#10;more"/></testcase>'
        '<testcase classname="a" name="left"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    assert read_report(file) == ({"passed": 1, "failed": 1, "skipped": 1}, {"a.bad": "assert 1 == 2"})


def test_every_test_for_a_gpu_is_run_but_whole_trainings():
    files = files_of_gpu_tests()
    assert {"tests/model/test_attention.py", "tests/model/test_encoder.py"} <= set(files)
    assert not [name for name in files if name.startswith("tests/benchmark/") or name.endswith("test_gpu.py")]


def test_a_command_ends_with_all_that_it_has_started(task, capsys):
    code = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '100'])"
    status, text = run_logged(task, [sys.executable, "-S", "-c", code], limit_s=1.0)
    assert (status, text) == (124, "begun\n") and reason(status, text) == "its time was up"
    assert "begun" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, why",
    [
        ("error: steps=0 is too few\nTraceback\n", "exit status 2: error: steps=0 is too few"),
        (
            "File x\ntorch.OutOfMemoryError: CUDA out of memory\nbye\n",
            "exit status 2: torch.OutOfMemoryError: CUDA out of memory",
        ),
        ("some words\nand more\n", "exit status 2: and more"),
        ("", "exit status 2: it printed nothing"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(text, why):
    assert reason(2, text) == why


def rows(folder):
    return read_rows(folder) if (folder / "results.jsonl").exists() else []


def is_begin(row):
    return row["name"] == "stage began"


@pytest.mark.parametrize("plan", STAGES, ids=lambda plan: plan.name)
def test_every_stage_has_its_function(plan):
    module, _, name = plan.function.partition(":")
    assert callable(getattr(importlib.import_module(f"{STAGES_PACKAGE}.{module}"), name))


def check(out, *options, timeout=590):
    command = [sys.executable, "tools/gpu_check.py", str(out), "--small", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.skipif(torch.cuda.is_available(), reason="its place is a machine without a GPU")
def test_the_profile_of_real_steps(tmp_path):
    done = check(tmp_path, "--only", "profile")
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()
    (step,) = [row for row in read_rows(tmp_path) if row["name"] == "step"]
    assert step["step_ms"] > 0 and "ZeRO stage" in step["title"]
    assert "aten::mm" in (tmp_path / "profile.txt").read_text()
    assert "| profile | done" in done.stdout and (tmp_path / "summary.md").read_text() in done.stdout


def test_an_unknown_stage_is_one_line(tmp_path):
    done = check(tmp_path, "--only", "everything")
    assert done.returncode == 2 and done.stderr.startswith("error: --only everything: there is no such stage")


@pytest.mark.slow
def test_an_interrupted_check_has_its_summary(tmp_path):
    command = [sys.executable, "tools/gpu_check.py", str(tmp_path), "--small", "--only", "profile,parts"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and not any(map(is_begin, rows(tmp_path))):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "| profile | interrupted" in printed and "| parts   | not run" in printed
    assert (tmp_path / "summary.md").read_text() in printed


@pytest.mark.long
@pytest.mark.timeout(1_700)
def test_a_whole_check_in_small(tmp_path):
    done = check(tmp_path, timeout=1_600)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()[-5000:]
    ends = {row["stage"]: row["status"] for row in read_rows(tmp_path) if row["name"] == "stage ended"}
    assert ends == {plan.name: "done" for plan in STAGES}
    assert not [row for row in read_rows(tmp_path) if "failed" in row and row.get("failed") and row["name"] != "tests"]
    assert {file.name for file in tmp_path.iterdir()} == {"results.jsonl", "log.txt", "summary.md", "profile.txt"}
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])["name"] == "check"

"""The stage `profile`: which kernels a step of pre-training spends the GPU's time on, how long it stands idle, and
where the program waits for it."""

from __future__ import annotations

import json
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from spe_dist.benchmark.gpu_check.commands import Task, give_failure
from spe_dist.benchmark.gpu_check.record import PROFILE_FILE, give
from spe_dist.benchmark.gpu_check.stages.throughput import BATCH, KEYS, SMALL_BATCH, SMALL_KEYS, SMALL_VOCABULARY
from spe_dist.benchmark.pretraining.contenders import Ours
from spe_dist.benchmark.pretraining.work import Work
from spe_dist.distributed.context import start_ranks
from spe_dist.distributed.launch import detect
from spe_dist.utils.tables import aligned

STEPS = 5
DEAREST = 30
IN_RESULTS = 10  # of these go into the results too
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a trace
WAITING = "synchronizing CUDA operation"  # of torch's warning
NAME_WIDTH = 150


@dataclass(frozen=True)
class Kernel:
    """What a kernel, or on a CPU an operation, took in all steps."""

    name: str
    calls: int
    ms: float


def check_profile(task: Task) -> bool:
    """Results on time, kernels and waits of the default path; the table of kernels goes into a file of its own."""
    given = {
        "global_batch_sentences": SMALL_BATCH if task.small else BATCH,
        "queue_keys": SMALL_KEYS if task.small else KEYS,
    }
    context = start_ranks(detect(), timeout_s=600.0)
    work = Work("2x128", given, vocabulary=SMALL_VOCABULARY) if task.small else Work("base", given)
    contender = Ours(work, context)
    contender.warm_up()
    step_ms = _milliseconds_a_step(contender)
    waits = count_waits(contender.one_step) if task.on_gpu else None
    if waits is not None:
        give("waits for the device in a step", waits=sum(waits.values()), places=dict(waits.most_common(20)))
    kernels, busy_ms = _profiled(contender, task.on_gpu)
    if not kernels:
        return give_failure("step", f"the profiler saw no kernel; without it a step takes {step_ms:.2f} ms")
    figures: dict[str, Any] = {"step_ms": step_ms}
    if busy_ms is not None:
        launched = sum(kernel.calls for kernel in kernels) / STEPS
        figures |= {"busy_ms": busy_ms, "idle_share": max(0.0, 1 - busy_ms / step_ms), "kernels_a_step": launched}
    give("step", title=contender.title, **figures)
    total_ms = sum(kernel.ms for kernel in kernels)
    for kernel in kernels[:IN_RESULTS]:
        give(f"kernel {kernel.name[:60]}", ms_a_step=kernel.ms / STEPS, share=kernel.ms / total_ms)
    lines = [f"{contender.title}, {STEPS} steps of {step_ms:.2f} ms", "", *table(kernels, STEPS)]
    if waits is not None:
        lines += ["", "waits for the device in one step", *(f"{count:5} {place}" for place, count in waits.items())]
    (task.out / PROFILE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def _milliseconds_a_step(contender: Ours) -> float:
    began = contender.now()
    for _ in range(STEPS):
        contender.one_step()
    return 1000 * (contender.now() - began) / STEPS


def _profiled(contender: Ours, on_gpu: bool) -> tuple[list[Kernel], float | None]:
    """Kernels of some steps, the dearest first, and the milliseconds a step in which any of them ran (None on a CPU).

    On a GPU nothing but it is traced: watching the host would slow the launches down.
    """
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        for _ in range(STEPS):
            contender.one_step()
        contender.now()
    if not on_gpu:
        events = [Kernel(event.key, event.count, event.self_cpu_time_total / 1000) for event in profiler.key_averages()]
        return dearest_first(events), None
    kernels, busy_ms = read_trace(events_of(profiler))
    return kernels, busy_ms / STEPS


def events_of(profiler: profile) -> list[dict[str, Any]]:
    """What a profiler has seen, in the form of a trace."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        return json.loads(file.read_text(encoding="utf-8"))["traceEvents"]


def read_trace(events: Iterable[dict[str, Any]]) -> tuple[list[Kernel], float]:
    """Kernels of a trace, the dearest first, and the milliseconds in which at least one of them ran."""
    calls: Counter[str] = Counter()
    microseconds: Counter[str] = Counter()
    spans = []
    for event in events:
        if event.get("ph") == "X" and event.get("cat") in ON_GPU:
            name, duration = str(event["name"]), float(event["dur"])
            calls[name] += 1
            microseconds[name] += duration  # type: ignore[assignment]
            spans.append((float(event["ts"]), float(event["ts"]) + duration))
    kernels = [Kernel(name, calls[name], microseconds[name] / 1000) for name in calls]
    return dearest_first(kernels), covered(spans) / 1000


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans (begin, end)."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def dearest_first(kernels: Iterable[Kernel]) -> list[Kernel]:
    """Kernels by the time that they take, the longest first."""
    return sorted(kernels, key=lambda kernel: -kernel.ms)


def table(kernels: Sequence[Kernel], steps: int) -> list[str]:
    """The dearest kernels in lines, with their part of the time of all."""
    total_ms = sum(kernel.ms for kernel in kernels)
    rows = [["ms a step", "share", "calls a step", "us each", "kernel"]]
    for kernel in kernels[:DEAREST]:
        rows.append(
            [
                f"{kernel.ms / steps:.3f}",
                f"{kernel.ms / total_ms:.1%}",
                f"{kernel.calls / steps:,.1f}",
                f"{1000 * kernel.ms / kernel.calls:,.1f}",
                kernel.name[:NAME_WIDTH],
            ]
        )
    rest = kernels[DEAREST:]
    if rest:
        rest_ms = sum(kernel.ms for kernel in rest)
        rows.append([f"{rest_ms / steps:.3f}", f"{rest_ms / total_ms:.1%}", "", "", f"({len(rest)} others)"])
    return aligned(rows, ">>>><", rule=True)


def count_waits(step: Callable[[], object]) -> Counter[str]:
    """How often each place of the program makes it wait for the GPU, as torch warns of it."""
    places: Counter[str] = Counter()

    def note(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if WAITING in str(message):
            places[place_of(traceback.extract_stack(), filename, lineno)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return places


def place_of(stack: Sequence[traceback.FrameSummary], filename: str, lineno: int) -> str:
    """The innermost place in this project's training, and the place that really waits where that is another."""
    inner = f"{_short(filename)}:{lineno}"
    for frame in reversed(stack):
        if "spe_dist/" in frame.filename and "/benchmark/" not in frame.filename:
            ours = f"{_short(frame.filename)}:{frame.lineno}"
            return ours if ours == inner else f"{ours} (in {inner})"
    return inner


def _short(filename: str) -> str:
    for folder in ("site-packages/", "dist-packages/"):
        if folder in filename:
            return filename.rpartition(folder)[2]
    at = filename.rfind("spe_dist/")
    return filename[at:] if at >= 0 else filename

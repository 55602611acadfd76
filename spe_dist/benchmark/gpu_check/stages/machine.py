"""The stage `machine`: what is installed, what `spe doctor` says, and what the device can do at most."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata

import torch
import torch.nn.functional as F

from spe_dist.benchmark.gpu_check.commands import Task, run_spe
from spe_dist.benchmark.gpu_check.record import give
from spe_dist.benchmark.gpu_check.stages.timing import device, milliseconds

PACKAGES = ("transformers", "deepspeed", "triton", "numpy", "tokenizers", "safetensors", "webdataset", "pytest")
GIB, MIB = 2**30, 2**20
SQUARE = 8192  # sides of a product that any GPU does at its best
ROWS = 14_336  # tokens of 256 sentences of 28 pieces in two views
BERT_BASE = (768, 3072)


def check_machine(task: Task) -> bool:
    """Results on versions, then on ceilings, then on the doctor's findings."""
    here = device()
    give("versions", python=platform.python_version(), torch=torch.__version__, **_versions())
    give("device", **_device(here))
    _copies(here, (4 * MIB if task.small else 4 * GIB))
    _products(here, 256 if task.small else SQUARE, 128 if task.small else ROWS)
    if here.type == "cuda":
        _launches(here)
    return _doctor(task)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _device(here: torch.device) -> dict[str, object]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if here.type != "cuda":
        return {"device": "cpu", "cores": cores, "threads": torch.get_num_threads()}
    gpu = torch.cuda.get_device_properties(here)
    return {
        "device": gpu.name,
        "gpus": torch.cuda.device_count(),
        "capability": f"{gpu.major}.{gpu.minor}",
        "memory_gib": gpu.total_memory / GIB,
        "multiprocessors": gpu.multi_processor_count,
        "cores": cores,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def _driver() -> str:
    """Version, clock and power limit, as nvidia-smi has them."""
    if not shutil.which("nvidia-smi"):
        return "unknown"
    asked = "driver_version,clocks.max.sm,power.limit,clocks.sm"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "unknown"


def _copies(here: torch.device, size: int) -> None:
    """Bytes read and written a second where a tensor is copied on the device; bytes sent to it and back."""
    source, target = (torch.empty(size, dtype=torch.uint8, device=here) for _ in range(2))
    taken_ms = milliseconds(lambda: target.copy_(source), here)
    give("copy on the device", gb_per_s=2 * size / taken_ms / 1e6, mib=size / MIB)
    if here.type == "cuda":
        pinned = torch.empty(min(size, 256 * MIB), dtype=torch.uint8, pin_memory=True)
        part = source[: len(pinned)]
        to_ms = milliseconds(lambda: part.copy_(pinned, non_blocking=True), here)
        from_ms = milliseconds(lambda: pinned.copy_(part, non_blocking=True), here)
        give("copy from pinned memory", gb_per_s=len(pinned) / to_ms / 1e6, back_gb_per_s=len(pinned) / from_ms / 1e6)


def _products(here: torch.device, side: int, rows: int) -> None:
    """FLOP a second of plain products by type: a large square, and the larger one of a layer of BERT-base."""
    shapes = {"square": (side, side, side), "layer": (rows, *BERT_BASE)}
    kinds = ("float32", "tf32", "bfloat16", "float16") if here.type == "cuda" else ("float32", "bfloat16")
    for kind in kinds:
        dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
        torch.backends.cuda.matmul.fp32_precision = "tf32" if kind == "tf32" else "ieee"
        figures = {}
        for name, (m, k, n) in shapes.items():
            x = torch.randn(m, k, device=here).to(dtype)
            weight = torch.randn(n, k, device=here).to(dtype)
            taken_ms = milliseconds(_product(x, weight), here)
            figures[f"{name}_tflop_per_s"] = 2e-9 * m * k * n / taken_ms
        give(f"product in {kind}", **figures)


def _product(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
    return lambda: F.linear(x, weight)


def _launches(here: torch.device) -> None:
    """Time between two small kernels in a row: what a launch costs where the device has nothing else to do."""
    x = torch.zeros(1, device=here)

    def hundred() -> None:
        for _ in range(100):
            x.add_(1)

    give("small kernels", us_each=10 * milliseconds(hundred, here))


def _doctor(task: Task) -> bool:
    status, text = run_spe(task, "doctor", limit_s=task.left_s())
    problems = [line.removeprefix("! ").strip() for line in text.splitlines() if line.startswith("!")]
    give("spe doctor", exit=status, problems=problems)
    return True  # what it finds is a result; what cannot run fails where it is run

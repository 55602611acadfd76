"""A stand-in for the training that slurm/pretrain.sh and finetune.sh start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from project import ROOT

PROGRAMS = ["pretrain", pytest.param("finetune", marks=pytest.mark.long)]  # both scripts hand over to job.sh

# Writes where it runs, then does what --act says. As in training, signals only set a flag.
STAND_IN = """
import argparse, json, os, signal, time
from dataclasses import asdict
from pathlib import Path
from spe_dist.cli.exits import stopped_status
from spe_dist.distributed.launch import detect

parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path)
parser.add_argument("--resume", action="append")
parser.add_argument("--act", default="finish")
parser.add_argument("--seed")
parser.add_argument("--global_batch_sentences")
parser.add_argument("--print_config", action="store_true")
options = parser.parse_args()
if options.print_config:
    print("  micro_batch_sentences: 0")
    print(f"  global_batch_sentences: {options.global_batch_sentences or 240}")
    raise SystemExit
place = detect()
asked = []
if options.act != "deaf":
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda got, frame: asked.append(signal.Signals(got).name))
options.output.mkdir(parents=True, exist_ok=True)
facts = {**asdict(place), "program": Path(__file__).stem, "resume": options.resume,
         "python": os.environ.get("STAND_IN_PYTHON"), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
         "threads": os.environ["OMP_NUM_THREADS"]}
part = options.output / f"part.{place.rank}"
part.write_text(json.dumps(facts))
part.rename(options.output / f"started.{place.restart_count}.{place.rank}")
if options.act == "fail" and place.rank == 1:
    while not (options.output / "started.0.0").exists():  # not yet taking signals, it would die of TERM: status 143
        time.sleep(0.05)
    raise SystemExit(7)
ends = options.act == "finish" or (place.restart_count and options.act not in ("wait always", "stuck"))
deadline = time.monotonic() + (0 if ends else 60)
while time.monotonic() < deadline and not asked:
    if (options.output / "STOP").exists():
        asked.append("STOP")
    time.sleep(0.05)
if asked:
    time.sleep(1)
    (options.output / f"saved.{place.restart_count}.{place.rank}").write_text(asked[0])
    if place.rank == 0 and options.act != "stuck":
        (options.output / "checkpoints").mkdir(exist_ok=True)
        (options.output / "checkpoints" / "latest").write_text(f"step_{place.restart_count}")
    if options.act == "killed":  # once all is saved
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    if options.act != "end":
        raise SystemExit(1 if options.act == "fail" else stopped_status(place.rank, place.ranks))
"""


def write_package(folder: Path) -> None:
    """A package spe_dist in `folder` whose two trainings are the stand-in."""
    package = folder / "spe_dist"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "cli", "distributed", "utils"):
        (package / name).symlink_to(ROOT / "spe_dist" / name)
    for program in ("pretrain.py", "finetune.py"):
        (package / program).write_text(STAND_IN)


def write_scripts(folder: Path) -> None:
    """The job scripts themselves, unedited."""
    folder.mkdir()
    for name in ("pretrain.sh", "finetune.sh", "job.sh"):
        (folder / name).symlink_to(ROOT / "slurm" / name)


def write_program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def started(output: Path, start: int = 0) -> list[dict]:
    """What the ranks of a start wrote, in rank order."""
    found = [json.loads(file.read_text()) for file in output.glob(f"started.{start}.*")]
    return sorted(found, key=lambda facts: facts["rank"])

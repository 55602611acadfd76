"""The demo from nothing to a plain PyTorch encoder: what `make pretrain` runs.

Demo corpus and shards (made by pretrain.py itself), a DeepSpeed ZeRO-2 run on all GPUs or on two CPU ranks, conversion
of its last checkpoint, then a table of what was learned on the held-out sentences and where everything lies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.parser import Parser

ROOT = Path(__file__).resolve().parents[2]
CPU_RANKS = 2

# What is claimed, the figure, its yardstick, the yardstick's name, and whether a higher figure is better.
CLAIMS = (
    ("token boundary, nats a piece", "tbo_nats", "tbo_count_model_nats", "count model", False),
    ("span permutation, nats a span", "spo_nats", "spo_entropy", "entropy of the labels", False),
    ("contrastive top-1, same layout", "top1_same_layout", "top1_same_layout_chance", "chance", True),
    ("contrastive top-1, random", "top1_random", "top1_random_control", "control without words", True),
)


def count_ranks() -> int:
    """As many GPUs as there are and the demo's batch divides by, else two CPU ranks (and DeepSpeed is told so)."""
    import torch

    from spe_dist.config.presets import PRETRAINING

    gpus = torch.cuda.device_count()
    if not gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
    batch = PRETRAINING["demo"]["global_batch_sentences"]
    return max((ranks for ranks in range(1, gpus + 1) if batch % ranks == 0), default=CPU_RANKS)


def run(title: str, command: list[str]) -> float:
    """Run one stage, its output shown; returns its seconds. Ends the demo where the stage fails."""
    print(f"\n== {title}\n$ {' '.join(command)}", flush=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    start = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if status:
        sys.exit(f"error: this stage ended with status {status}; its own messages stand above")
    return time.monotonic() - start


def is_demo_run(folder: Path) -> bool:
    """Whether a folder may be emptied: it holds an earlier demo, whole or broken off, or nothing."""
    if not folder.is_dir():
        return False
    return (folder / "corpus" / "text.txt").is_file() or {path.name for path in folder.iterdir()} <= {"corpus"}


def table(evaluations: list[dict[str, Any]]) -> list[str]:
    """What was learned: the first and the last evaluation on held-out sentences, beside METHOD's yardsticks."""
    from spe_dist.utils.tables import aligned

    first, last = evaluations[0], evaluations[-1]
    heads = ("on held-out sentences", f"step {first['step']}", f"step {last['step']}", "yardstick", "")
    rows = [heads]
    for label, figure, against, yardstick, higher in CLAIMS:
        start, end, mark = first.get(f"heldout/{figure}"), last.get(f"heldout/{figure}"), last.get(f"heldout/{against}")
        if start is None or end is None or mark is None:
            continue
        verdict = "learned" if (end > mark if higher else end < mark) else "not yet"
        shape = "{:.1%}" if higher else "{:.3f}"
        rows.append((label, shape.format(start), shape.format(end), f"{yardstick} {shape.format(mark)}", verdict))
    return aligned(rows, "<")


def try_export(folder: Path) -> str:
    """Load the exported encoder with transformers alone and encode a sentence; says what came out."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(ROOT / folder)
    model = AutoModel.from_pretrained(ROOT / folder).eval()
    sentence = "Born in Tarnow , the painter founded a museum ."
    states = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state
    return f"AutoModel.from_pretrained('{folder}') encodes {sentence!r} as {tuple(states.shape)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    parser = Parser("spe demo", "[--output FOLDER] [-- SETTINGS OF spe pretrain]", __doc__)
    parser.add_argument("--output", default="runs/demo", metavar="FOLDER", help="folder of the run, emptied first")
    parser.add_argument("settings", nargs="*", metavar="SETTINGS", help="further arguments for spe pretrain, after --")
    options = parser.parse(argv)
    from spe_dist.distributed.ports import free_port
    from spe_dist.training.metrics import read_rows
    from spe_dist.utils.run_files import METRICS_FILE

    output = Path(options.output)
    if (ROOT / output).exists():
        if not is_demo_run(ROOT / output):
            sys.exit(f"error: {output} exists and is no demo run; give another --output")
        shutil.rmtree(ROOT / output)
    ranks = count_ranks()
    launcher = ["deepspeed", "--num_gpus", str(ranks), "--master_port", str(free_port()), "--log_level", "warning"]
    arguments = ["--deepspeed", "ds_configs/zero2.json", "--preset", "demo", "--output", str(output), *options.settings]
    command = [*launcher, "spe_dist/pretrain.py", *arguments]
    trained_s = run(f"Pre-training on {ranks} ranks, corpus and shards first", command)
    checkpoints = ROOT / output / "checkpoints"
    checkpoint = output / "checkpoints" / (checkpoints / "latest").read_text().strip()
    export = output / "encoder"
    convert = [sys.executable, "tools/convert_checkpoint.py", str(checkpoint), str(export)]
    converted_s = run("Conversion to plain PyTorch", convert)

    print(f"\n== Result ({trained_s:.0f} s training and data, {converted_s:.0f} s conversion)")
    evaluations = read_rows(ROOT / output / METRICS_FILE, "evaluation")
    print("\n".join(table(evaluations)) if evaluations else "no evaluation was made")
    print(f"\nplain encoder   {try_export(export)}")
    print(f"loss curves     {output / 'curves.png'}   (also: tensorboard --logdir {output / 'tensorboard'})")
    print(f"checkpoints     {output / 'checkpoints'}")
    return 0

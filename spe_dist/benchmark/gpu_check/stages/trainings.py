"""The stages that train and predict as users do, with the commands that users type, and look at what comes out."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from spe_dist.benchmark.gpu_check.commands import Task, give_failure, reason, run_logged, run_spe
from spe_dist.benchmark.gpu_check.data import DEV, SHARDS, START, TRAIN
from spe_dist.benchmark.gpu_check.record import give
from spe_dist.distributed.ports import free_port
from spe_dist.training.metrics import read_rows
from spe_dist.utils.commands import search_path
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER, METRICS_FILE, MODEL_FOLDER, SCORES_FILE, STATE_FILE

STEPS, SMALL_STEPS = 60, 20
ENDS = 10  # steps at either end whose mean losses are compared
SAME_BY_STEP = ("step", "applied", "loss_scale", "learning_rate", "queue_fill", "masked_pieces")
LOSS_TOLERANCE = 0.01  # kernels of a GPU add in no fixed order
PRETRAIN_FILE = "spe_dist/pretrain.py"
ENGINE = re.compile(r"ZeRO stage \d, \w+")  # of a run's opening lines

Row = dict[str, Any]


def check_float16(task: Task) -> bool:
    """The default path on a GPU: float16 at ZeRO stage 1, a checkpoint in between, and a run that goes on from it."""
    steps = _steps(task)
    settings = ["--deepspeed=zero1", "--precision=auto", f"--checkpoint_every_steps={steps // 2}"]
    whole = pretrain(task, "stage 1, precision auto", settings, task.share_s(2))
    if whole is None:
        return False
    newest = task.work / "run" / CHECKPOINTS_FOLDER / f"step_{steps:08d}" / STATE_FILE
    newest.unlink()  # the run goes on from the one before
    again = pretrain(task, "resumed from its checkpoint", [*settings, "--resume=auto"], task.left_s(), keep=True)
    if again is None:
        return False
    differences = unlike(whole, again)
    give("resumed and undisturbed run", equal=not differences, differences=differences[:5])
    return not differences


def unlike(whole: list[Row], again: list[Row]) -> list[str]:
    """What differs between an undisturbed run and one that was resumed, by step."""
    found = [f"{len(again)} steps in place of {len(whole)}"] if len(whole) != len(again) else []
    for before, after in zip(whole, again, strict=False):
        found += [f"step {before['step']}: {name}" for name in SAME_BY_STEP if before.get(name) != after.get(name)]
        if abs(after["loss"] - before["loss"]) > LOSS_TOLERANCE * abs(before["loss"]):
            found.append(f"step {before['step']}: loss {before['loss']:.4f} and {after['loss']:.4f}")
    return found


def check_stages(task: Task) -> bool:
    """The other stages of ZeRO, offloading, and the other precisions."""
    combinations = [
        ("stage 2, precision auto", "zero2", "auto"),
        ("stage 3, precision auto", "zero3", "auto"),
        ("stage 2, optimizer on the CPU", "zero2_offload", "auto"),
        ("stage 1, bfloat16", "zero1", "bfloat16"),
        ("one rank by itself, mixed", "", "mixed"),
    ]
    fine = True
    for number, (name, deepspeed, precision) in enumerate(combinations):
        settings = [f"--precision={precision}", *([f"--deepspeed={deepspeed}"] if deepspeed else [])]
        fine &= pretrain(task, name, settings, task.share_s(len(combinations) - number)) is not None
    return fine


def check_launchers(task: Task) -> bool:
    """The same with DeepSpeed's launcher and with torchrun."""
    port = f"--master_port={free_port()}"
    launchers = {
        "deepspeed --num_gpus 1": [deepspeed_command(), "--num_gpus=1", port],
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=1", port],
    }
    fine = True
    for number, (name, launcher) in enumerate(launchers.items()):
        limit_s = task.share_s(len(launchers) - number)
        fine &= pretrain(task, name, ["--precision=auto"], limit_s, launcher=launcher) is not None
    return fine


def deepspeed_command() -> str:
    """Its launcher: on PATH, or beside the package where that was installed into a folder of its own."""
    found = shutil.which("deepspeed", path=search_path())
    if found is None:
        spec = importlib.util.find_spec("deepspeed")
        origin = Path(spec.origin) if spec is not None and spec.origin else Path()
        found = str(origin.parents[1] / "bin" / "deepspeed") if len(origin.parents) > 1 else "deepspeed"
    return found


def pretrain(
    task: Task,
    name: str,
    settings: list[str],
    limit_s: float,
    keep: bool = False,
    launcher: list[str] | None = None,
) -> list[Row] | None:
    """Rows of the steps of a short pre-training, which are also given as a result; None where it failed.

    Args:
        task: of the stage.
        name: of the result.
        settings: of the run, beside a small model and the check's shards.
        limit_s: time for it.
        keep: go on in the folder of the run before.
        launcher: words before the script; none: this Python alone.
    """
    output = task.work / "run"
    if not keep:
        shutil.rmtree(output, ignore_errors=True)
    command = [*(launcher or [sys.executable]), PRETRAIN_FILE, "--preset=demo", f"--shards={task.data / SHARDS}"]
    command += [f"--output={output}", f"--steps={_steps(task)}", "--evaluate_every_steps=0", "--log_every_steps=1"]
    status, text = run_logged(task, [*command, *settings], limit_s, _environment(task))
    rows = read_rows(output / METRICS_FILE, "train")
    if status or not rows:
        give_failure(name, reason(status, text))
        return None
    figures, learned = summary(rows)
    engine = ENGINE.search(text)
    give(name, learned=learned, **figures, engine=engine.group() if engine else "not said")
    return rows if learned else None


def summary(rows: list[Row]) -> tuple[Row, bool]:
    """(figures of a run, whether it has learned): it has where a loss has fallen and most steps were applied."""
    early, late = (sum(row["tbo_loss"] for row in part) / len(part) for part in (rows[:ENDS], rows[-ENDS:]))
    applied = sum(bool(row["applied"]) for row in rows)
    step_s = median(row["step_s"] for row in rows[len(rows) // 2 :])
    figures = {
        "steps": len(rows),
        "applied": applied,
        "loss_scale": rows[-1].get("loss_scale"),
        "tbo_loss_first": early,
        "tbo_loss_last": late,
        "ms_a_step": 1000 * step_s,
        "first_step_s": rows[0]["step_s"],
        "peak_memory_gib": rows[-1].get("peak_memory_gib"),
    }
    return figures, late < early and applied > len(rows) / 2


def check_finetuning(task: Task) -> bool:
    """Fine-tuning of the joint model on words, and prediction of a corpus in words."""
    output = task.work / "tuned"
    epochs = 1 if task.small else 4
    settings: list[object] = ["--preset=demo", f"--start={task.data / START}", f"--train={task.data / TRAIN}"]
    settings += [f"--dev={task.data / DEV}", f"--output={output}", f"--epochs={epochs}", "--gold_epochs=1"]
    settings += ["--evaluate_every_epochs=1", "--precision=auto", "--train_share=1.0"]
    status, text = run_spe(task, "finetune", *settings, limit_s=task.share_s(2))
    if status:
        return give_failure("fine-tuning", reason(status, text))
    scores = json.loads((output / SCORES_FILE).read_text(encoding="utf-8"))
    dev = {name: entry["f1"] for name, entry in scores["dev"].items() if isinstance(entry, dict) and "f1" in entry}
    give(
        "fine-tuning",
        sentences_per_s=scores["sentences_per_s"],
        steps=scores["steps"],
        peak_memory_gib=scores["peak_memory_gib"],
        dev_f1=dev,
    )
    return _predict(task, output / MODEL_FOLDER)


def _predict(task: Task, model: Path) -> bool:
    """In this process: what a command would take to start is no part of a rate."""
    from spe_dist.extraction.predicting.extractor import Extractor

    rows = json.loads((task.data / TRAIN).read_text(encoding="utf-8"))
    sentences = [row["tokens"] for row in rows]
    extractor = Extractor.from_pretrained(str(model))
    extractor.predict(sentences[:64])
    began = time.perf_counter()
    found = extractor.predict(sentences)
    seconds = time.perf_counter() - began
    entities = sum(len(sentence.entities) for sentence in found)
    give(
        "prediction",
        sentences_per_s=len(sentences) / seconds,
        entities_a_sentence=entities / len(sentences),
        device=str(extractor.device),
    )
    status, text = run_spe(
        task, "predict", model, task.data / DEV, "--output", task.work / "found.jsonl", limit_s=task.left_s()
    )
    if status:
        return give_failure("spe predict", reason(status, text))
    lines = (task.work / "found.jsonl").read_text(encoding="utf-8").splitlines()
    give("spe predict", lines=len(lines))
    return len(lines) > 0


def _steps(task: Task) -> int:
    return SMALL_STEPS if task.small else STEPS


def _environment(task: Task) -> dict[str, str]:
    return {"PATH": search_path()} if task.on_gpu else {"PATH": search_path(), "DS_ACCELERATOR": "cpu"}

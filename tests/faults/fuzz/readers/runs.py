"""Readers of what a run leaves: metrics, scores, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.fuzz.damage import json_damage, lines_damage
from tests.faults.fuzz.engine import Reader
from tests.faults.fuzz.readers.files import copy_of, file_of

METRICS = '{"step": 1, "kind": "train", "loss": 2.5}\n{"step": 2, "kind": "evaluation", "held_out/x": null}\n'
SCORES = {
    "finished": True,
    "best_epoch": 3,
    "epochs": 4,
    "dev": {m: {"f1": 0.5} for m in ("entity", "relation", "ent_rel")},
    "test": None,
}
UNIT_COUNTS = {"units": "2 documents", **{m: [[1, 2, 2], [0, 1, 0]] for m in ("entity", "relation", "ent_rel")}}


def read_metrics(path: Path) -> None:
    from spe_dist.training.curves import read_training
    from spe_dist.training.metrics import read_rows

    read_rows(path)
    read_training(path.parent)


def read_scores(path: Path) -> None:
    from spe_dist.finetuning.results import describe_finished, finished_scores

    document = finished_scores(path.parent)
    if document is not None:
        describe_finished(path.parent, document)


def read_unit_counts(path: Path) -> None:
    from spe_dist.extraction.scoring.counts import UnitCounts
    from spe_dist.utils.reading.json_file import read_object

    UnitCounts.from_json(read_object(path, "run again"), str(path))


def read_piece(path: Path) -> None:
    from spe_dist.experiments.record import read_record

    read_record(path.parent)


def read_run_checkpoint(path: Path) -> None:
    """The checkpoint with a checksum of the damaged file that is right: what is in it must hold by itself."""
    from checkpoint_maker import write_state

    from spe_dist.export.checkpoint import read_checkpoint

    folder = next(parent for parent in path.parents if parent.name.startswith("step_"))
    if path.name != "state.json":
        write_state(folder)
    read_checkpoint(folder)


def checkpoint_readers(run: Path) -> list[Reader]:
    [step] = (run / "checkpoints").glob("step_*")
    files = [("state.json", json_damage), ("config.yaml", lines_damage), ("start/config.json", json_damage)]
    files += [(name.relative_to(step).as_posix(), json_damage) for name in step.rglob("index.json")]
    return [
        Reader(f"checkpoint, {name}", damage, copy_of(step.parent, f"{step.name}/{name}"), read_run_checkpoint)
        for name, damage in files
    ]


def run_readers() -> list[Reader]:
    piece = json.dumps({"state": "finished", "seconds": 1.5, "request": {"kind": "demo"}, "process": 3})
    return [
        Reader("metrics.jsonl", json_damage, file_of("metrics.jsonl", METRICS), read_metrics),
        Reader("scores.json", json_damage, file_of("scores.json", json.dumps(SCORES)), read_scores),
        Reader("unit_counts.json", json_damage, file_of("unit_counts.json", json.dumps(UNIT_COUNTS)), read_unit_counts),
        Reader("piece.json", json_damage, file_of("piece.json", piece), read_piece),
    ]

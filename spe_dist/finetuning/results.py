"""What a finished run leaves: scores.json, predictions, curves, and the lines that it prints.

scores.json             best epoch, scores of dev and test (where asked, with gold entities too), cost of the run
unit_counts.json        how many are right, predicted and gold in each document or sentence, for paired tests
predictions_dev.json    the corpora as the best model sees them, in the format of the input, or spert
predictions_test.json
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.errors import DataError
from spe_dist.extraction.formats import write_corpus, written_format
from spe_dist.extraction.joint.card import card_scores
from spe_dist.extraction.joint.folder import add_scores, load_extractor
from spe_dist.extraction.scoring.gold_entities import GOLD_ENTITIES, RELATION_METRICS
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.table import f1_line, scores_table
from spe_dist.finetuning.curves import draw_curves
from spe_dist.finetuning.data import Corpora
from spe_dist.finetuning.evaluation import Evaluation
from spe_dist.finetuning.loop import Best
from spe_dist.training.journal import Position
from spe_dist.training.progress import duration
from spe_dist.utils.files import appears, write_atomically
from spe_dist.utils.reading.json_file import read_object
from spe_dist.utils.run_files import MODEL_FOLDER, SCORES_FILE, UNIT_COUNTS_FILE
from spe_dist.utils.wording import how_many


@dataclass(frozen=True)
class Training:
    """How training went."""

    best: Best
    epochs: int
    position: Position
    steps_per_epoch: int
    sentences: int  # of an epoch
    began: float  # time.monotonic() at the start of this process's part
    peak_memory_gib: float  # the most of any rank


def write_results(
    config: FinetuneConfig,
    corpora: Corpora,
    evaluation: Evaluation,
    training: Training,
    run_state: Mapping[str, Any],
    may_write: Callable[[], None],
) -> list[str]:
    """Score the kept model as it was saved, write what the run leaves, return its closing lines. A collective.

    `run_state`: what a run that is started again in the same folder must have in common with this one. `may_write` is
    called before anything is written, and may raise.
    """
    output, context = Path(config.train.output), evaluation.context
    appears(output / MODEL_FOLDER)  # rank 0 has just written it
    model = load_extractor(output / MODEL_FOLDER, context.device).model
    document: dict[str, Any] = {"best_epoch": training.best.epoch, "dev": None, "test": None}
    units: dict[str, Any] = {}
    of_card: dict[str, dict[str, Any]] = {}
    lines = [_closing_line(training)]
    for name, corpus in corpora.evaluated().items():
        evaluated = evaluation.score(model, corpus)
        assert evaluated is not None, "nobody may stop it"
        predicted, scores = evaluated
        document[name], units[name] = scores.to_json(), scores.units.to_json()
        of_card[name] = card_scores(str(getattr(config.data, name)), scores)
        path = output / f"predictions_{name}.json"
        may_write()
        context.run_on_main(partial(write_corpus, predicted, path, written_format(predicted.format)))
        lines += ["", f"{name}: {scores_table(scores)}"]
        if config.data.gold_entities:
            evaluated = evaluation.score(model, corpus, given_entities=True)
            assert evaluated is not None, "nobody may stop it"
            document[f"{name}_gold_entities"] = evaluated[1].to_json()
            lines += ["", f"{name}, {GOLD_ENTITIES}: {scores_table(evaluated[1], metrics=RELATION_METRICS)}"]
    document |= _facts(config, training) | {"finished": True, "run": run_state}

    def write() -> Path | None:
        add_scores(output / MODEL_FOLDER, of_card)
        curves = draw_curves(output)
        write_atomically(output / UNIT_COUNTS_FILE, json.dumps(units) + "\n")
        write_atomically(output / SCORES_FILE, json.dumps(document, indent=1) + "\n")
        return curves

    may_write()
    curves = context.run_on_main(write)
    written = ", ".join(f"predictions_{name}.json" for name in corpora.evaluated())
    lines += ["", f"model: {output / MODEL_FOLDER}; {SCORES_FILE}{', ' if written else ''}{written} beside it"]
    lines += [f"curves: {curves}"] if curves else []
    folder = shlex.quote(str(output / MODEL_FOLDER))
    return [*lines, f"next: spe predict {folder} TEXT_FILE --output found.jsonl --html found.html"]


def _facts(config: FinetuneConfig, training: Training) -> dict[str, Any]:
    """What was trained, and what it cost."""
    return {
        "epochs": training.epochs,
        "steps": training.position.step,
        "training_sentences": training.sentences,
        "seconds": time.monotonic() - training.began,
        "training_seconds": training.position.trained_s,
        "sentences_per_s": _sentences_per_s(training),
        "peak_memory_gib": training.peak_memory_gib,
        "start": config.model.start or "none",
        "seed": config.train.seed,
        "train_share": config.data.train_share,
    }


def finished_scores(output: Path) -> dict[str, Any] | None:
    """scores.json of a finished run; None where it is not finished."""
    try:
        document = read_object(output / SCORES_FILE, "remove it")
    except (OSError, DataError):
        return None
    return document if document.get("finished") is True else None


def describe_finished(output: Path, document: dict[str, Any]) -> str:
    """One line about a run that needs no resuming."""
    try:
        parts = [f"{output} is finished: best epoch {document['best_epoch']:d} of {document['epochs']:d}"]
        for name in ("dev", "test"):
            if document.get(name):
                scores = {metric: document[name][metric] for metric in METRICS}
                measured = {m: of["f1"] for m, of in scores.items() if of.get("gold", 1) or of.get("predicted", 1)}
                parts.append(f"{name} {f1_line(measured)}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return f"{output} is finished; its {SCORES_FILE} was changed since"
    return "; ".join(parts)


def _closing_line(training: Training) -> str:
    return (
        f"finished after {how_many(training.epochs, 'epoch')}, {how_many(training.position.step, 'step')}, "
        f"{duration(training.position.trained_s)} of training ({_sentences_per_s(training):,.0f} sentences/s, peak "
        f"memory {training.peak_memory_gib:.2f} GiB a rank); best epoch {training.best.epoch:,}"
    )


def _sentences_per_s(training: Training) -> float:
    return (
        training.sentences * training.position.step / training.steps_per_epoch / max(training.position.trained_s, 1e-9)
    )

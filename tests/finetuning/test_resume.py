"""What a fine-tuning run continues from: its best epoch, the model of that time, the same sentences."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from small_runs import FINETUNING, command_line, small_corpus

from spe_dist import finetune
from spe_dist.cli.exits import USER_ERROR
from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import resolve
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.fence import Fence
from spe_dist.errors import CheckpointError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.finetuning.evaluation import Evaluation
from spe_dist.finetuning.loop import Best
from spe_dist.finetuning.resume import (
    checkpoint_capture,
    choose_start,
    restore_model,
    run_state,
)
from spe_dist.moco.fragments import Fragment
from spe_dist.utils.files import file_sha256

CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
ENGINE = {"ranks": 1, "precision": "float32", "zero_stage": 0}  # of the checkpoint; any other one may go on from it
BEST = {"epoch": 3, "score": 0.7, "evaluated_epoch": 4, "worse_evaluations": 1}
A, B = Entity(0, 1, "X"), Entity(1, 2, "Y")
SENTENCES = [Sentence(("a", "b"), (A, B), (Relation("r", A, B),)), Sentence(("c",))]


def corpus(*sentences):
    return Corpus((Document("d", sentences),))


def state_of(sentences=SENTENCES, dev=SENTENCES[:1], total_steps=20, **given):
    config = resolve([{"train": "t", "start": "s", **given}], FinetuneConfig)
    corpora = SimpleNamespace(sentences=sentences, dev=dev and corpus(*dev))
    return run_state(config, corpora, SimpleNamespace(total_steps=total_steps))


@pytest.fixture
def run(tmp_path):
    """A run's folder with its model and a checkpoint of step 8."""
    output = tmp_path / "run"
    model = output / "model"
    model.mkdir(parents=True)
    (model / "weights").write_text("of epoch 3")
    config = resolve([{"train": "t", "start": "s", "output": str(output), "resume": "auto"}], FinetuneConfig)
    engine = SimpleNamespace(fragments=lambda: [Fragment("weights/a", (3,), 0, torch.ones(3))], values=dict)
    checkpoints = Checkpoints(output / "checkpoints", 1, CONTEXT)
    position = {"applied_steps": 8, "skipped_steps": 0, "skipped_in_a_row": 0, "trained_s": 1.0}
    description = SimpleNamespace(write=lambda folder: (folder / "extractor").mkdir())
    write = checkpoint_capture(config, CONTEXT, engine, model, description)(True)
    (model / "weights").unlink()  # a model is replaced while its checkpoint is being written
    (model / "weights").write_text("of a later epoch")
    path = checkpoints.save(
        8, {"step": 8, **position, **state_of(), **ENGINE, "best": BEST}, lambda folder: write(folder, None)
    )
    return config, checkpoints, path, model


def test_a_run_goes_on_with_its_best_epoch(run):
    config, checkpoints, path, _ = run
    point, best = choose_start(config, CONTEXT, checkpoints, state_of())
    assert point.checkpoint == path and point.position.step == 8 and best == Best(**BEST)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sentences": SENTENCES[::-1]}, "other training sentences; resume with the same --train"),
        ({"sentences": [Sentence(("a", "b"), (A, B), (Relation("r", B, A),)), SENTENCES[1]]}, "other training sent"),
        ({"sentences": [Sentence(("a", "b"), (A, B), (Relation("s", A, B),)), SENTENCES[1]]}, "other training sent"),
        ({"sentences": [Sentence(("a", "b"), (A,), ()), SENTENCES[1]]}, "other training sentences"),
        ({"dev": SENTENCES}, "other dev sentences; resume with the same --dev"),
        ({"dev": None}, "other dev sentences"),
        ({"total_steps": 30}, "other total_steps; resume with epochs"),
        ({"seed": 4}, "seed=0, this run has 4"),
        ({"batch_sentences": 4}, "batch_sentences=32, this run has 4"),
        ({"context_pieces": 9}, "context_pieces=0, this run has 9"),
        ({"relation_size": 9}, "relation_size=128, this run has 9"),
    ],
)
def test_another_run_is_refused(run, asked, message):
    config, checkpoints, _, _ = run
    with pytest.raises(CheckpointError, match=message):
        choose_start(config, CONTEXT, checkpoints, state_of(**asked))


def test_neither_machine_nor_dropout_make_another_run_but_all_else_does():
    assert state_of() == state_of(dropout=0.3, precision="bfloat16", keep_zero_stage=True) != state_of(seed=1)


def test_the_model_comes_back_as_it_was_when_the_checkpoint_was_written(run):
    _, _, path, model = run
    (model / "weights").unlink()
    (model / "weights").write_text("of epoch 5")  # a later epoch, which is trained again
    (model / "more").write_text("of epoch 5")
    restore_model(path, model)
    assert {file.name: file.read_text() for file in model.iterdir()} == {"weights": "of epoch 3"}


def test_a_model_of_a_later_epoch_goes_where_the_checkpoint_has_none(run, tmp_path):
    _, _, _, model = run
    empty = tmp_path / "without"
    empty.mkdir()
    restore_model(empty, model)
    assert not model.exists()


def lose_the_folder(argv, output, at):
    """Fine-tune, every epoch the best; another start takes over at the end of an evaluation. What stands there then."""
    made, after = Counter(), Evaluation.score

    def lost(self, *given, **named):
        found = after(self, *given, **named)
        made["evaluations"] += 1
        if made["evaluations"] == at:
            Fence(output).claim()
            made["model"] = file_sha256(next((output / "model").glob("*.safetensors")))
        return found

    Evaluation.score = lost
    Best.after = lambda self, epoch, *_: Best(epoch, 1.0, epoch, 0)
    status = finetune.main(argv)
    kept = file_sha256(next((output / "model").glob("*.safetensors"))) == made["model"]
    return status, kept, sorted(path.name for path in output.iterdir())


@pytest.mark.distributed
@pytest.mark.parametrize("at", [2, 3])  # of epoch 2; of the kept model, at the end
def test_a_start_that_lost_its_folder_while_it_evaluated_writes_nothing(run_ranks, demo_corpus, tmp_path, at):
    output = tmp_path / "run"
    settings = {**FINETUNING, **small_corpus(demo_corpus, tmp_path), "output": output, "epochs": 2}
    argv = command_line({**settings, "checkpoint_every_epochs": 1})
    ((status, kept, names),) = run_ranks(lose_the_folder, 1, argv, output, at)
    assert status == USER_ERROR and kept
    assert "checkpoints" in names and not {"scores.json", "predictions_dev.json"} & set(names)

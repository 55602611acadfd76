"""One fine-tuning run from checked settings to its scores, on every rank.

The order matters: what can fail cheaply (start, whose language corpora take, output folder, corpora, ranks) is checked
before the engine is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import describe_differences
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan, Precision, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fragments.tensors import held_tensors
from spe_dist.errors import ConfigError
from spe_dist.export.folder import EXTRACTOR
from spe_dist.export.push import check_push, push
from spe_dist.extraction.joint.checkpoint import Description
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.folder import save_extractor
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.finetuning import resume
from spe_dist.finetuning.build import (
    build_engine,
    build_model,
    describe_model,
    extraction_settings,
    model_facts,
    plain_model,
)
from spe_dist.finetuning.data import (
    Corpora,
    TrainingData,
    check_ranks,
    prepare_training,
    read_corpora,
    warnings_of,
)
from spe_dist.finetuning.evaluation import Evaluation, copy_masters
from spe_dist.finetuning.loop import Best, Finetuner, finish_row
from spe_dist.finetuning.results import Training, describe_finished, finished_scores, write_results
from spe_dist.finetuning.start import StartNetwork, check_windows, language_lines, open_start, with_language
from spe_dist.finetuning.step import WEIGHTS, FinetuneStep
from spe_dist.training.health.choose_left_out import choose_left_out
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.journal import Journal
from spe_dist.training.metrics import MetricLog
from spe_dist.training.progress import duration
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.resume import ResumePoint, changed_settings, check_same_run, engine_state, settle_stage
from spe_dist.training.run import Run
from spe_dist.utils.files import check_free_name
from spe_dist.utils.memory import freeze_garbage_collector, peak_memory_gib
from spe_dist.utils.run_files import MODEL_FOLDER
from spe_dist.utils.wording import counted, how_many


@dataclass(frozen=True)
class Inputs:
    """What a run trains on and starts from, read and checked before anything costly is made."""

    config: FinetuneConfig  # its language is that of the start where none was named
    start: StartNetwork
    corpora: Corpora
    data: TrainingData
    max_pieces: int
    identity: dict[str, Any]  # what another start in the same folder must have in common with this one


def run_finetuning(
    config: FinetuneConfig, given_ds_config: dict[str, Any], plan: BatchPlan, precision: Precision, context: RankContext
) -> bool:
    """Train, keep the best model, score it: True; False where the run was asked to stop. A collective.

    Raises:
        SpeError: what a user can get wrong, before the first step.
        TrainingFailure: training went wrong.
    """
    began = time.monotonic()
    if config.train.push:
        context.run_on_main(lambda: check_push(str(config.train.push)))
    start = open_start(config)
    config = with_language(config, start)
    run = Run(config, context)
    inputs = read_inputs(config, start, context)
    if _is_finished(config, context, inputs.identity):
        run.stop.close()
        # A run that was killed after its scores were written has left them.
        context.run_on_main(lambda: resume.remove_checkpoints(run.checkpoints))
        for line in publish(config, context):
            print(line, flush=True)
        return True
    trainer, evaluation, run_state = _build(run, inputs, given_ds_config, plan, precision)
    freeze_garbage_collector()
    finished = trainer.run()
    if finished:
        training = summarise_training(trainer, context, began)
        may_write = run.checkpoints.check_owner
        lines = write_results(config, inputs.corpora, evaluation, training, run_state, may_write)
        may_write()
        context.run_on_main(lambda: resume.remove_checkpoints(run.checkpoints))
        lines += publish(config, context)
    else:
        position = trainer.journal.position
        lines = [
            f"stopped as asked ({run.stop_reason()}) in epoch {trainer.epoch + 1:,} of {trainer.data.epochs:,}, step "
            f"{position.step:,}, after {duration(position.trained_s)} of training",
            "next: the same command with --resume auto continues",
        ]
    run.end(trainer.journal, lines, finished)
    return finished


def read_inputs(config: FinetuneConfig, start: StartNetwork, context: RankContext) -> Inputs:
    """Corpora and training examples. Raises SpeError for what cannot be trained on, or not on so many ranks."""
    corpora = read_corpora(config)
    max_pieces = check_windows(config, start)
    data = prepare_training(config, corpora, start.tokenizer, max_pieces)
    check_ranks(data, context.ranks)
    return Inputs(config, start, corpora, data, max_pieces, resume.run_state(config, corpora, data))


def _build(
    run: Run, inputs: Inputs, given_ds_config: dict[str, Any], plan: BatchPlan, precision: Precision
) -> tuple[Finetuner, Evaluation, dict[str, Any]]:
    """(the trainer, at the place where this start begins; what scores its model; what each checkpoint says of the run).

    The output folder is claimed as late as possible: whatever refuses this start comes before.
    """
    config, start, corpora, context = inputs.config, inputs.start, inputs.corpora, run.context

    def choose() -> tuple[dict[str, Any], ResumePoint, LeftOut, Best]:
        point, best = resume.choose_start(config, context, run.checkpoints, inputs.identity)
        chosen, point = settle_stage(config.train, given_ds_config, precision, context.ranks, point)
        return chosen, *choose_left_out(config.train, point, context, range(corpora.train.n_sentences)), best

    ds_config, point, left_out, best = choose()
    data = inputs.data.without(left_out.sentences)
    run_state = {**inputs.identity, **engine_state(precision, context.ranks, ds_config["zero_optimization"]["stage"])}
    model_folder = run.output / MODEL_FOLDER
    context.run_on_main(lambda: check_free_name(model_folder, True, EXTRACTOR))

    model = build_model(config, corpora.labels, start)
    plain = plain_model(model, ds_config, precision, context.device)
    engine, rates = build_engine(config, model, ds_config, precision, context)
    resume.restore(point, engine)
    if not run.claim(point):
        _, point, left_out, best = choose()
        data = inputs.data.without(left_out.sentences)
        resume.restore(point, engine)
    run.write_settings()
    if point.checkpoint is not None:
        context.run_on_main(partial(resume.restore_model, point.checkpoint, model_folder))
    settings = {**start.settings, **extraction_settings(config, inputs.max_pieces)}
    description = describe_model(config, start, data, corpora.labels, settings)
    journal = _journal(run, engine, point, best, data, left_out, run_state, description)
    journal.say(*opening_lines(run, engine, start, corpora, data, plan), *point.notes)
    maker = ExampleMaker(start.tokenizer, None, inputs.max_pieces, config.data.context_pieces)
    evaluation = Evaluation(maker, context, config.data.symmetric, product_dtype(precision))

    def keep_model(epoch: int, scores: Scores | None) -> None:
        run.checkpoints.check_owner()  # another start may have taken over while this one evaluated
        facts = model_facts(config, start, data, epoch, scores)
        context.run_on_main(
            lambda: save_extractor(model_folder, plain, start.tokenizer, corpora.labels, settings, facts)
        )

    def go_back(to: ResumePoint) -> None:
        assert to.checkpoint is not None
        resume.restore(to, engine)
        context.run_on_main(partial(resume.restore_model, to.checkpoint, model_folder))

    trainer = Finetuner(
        config=config,
        step=FinetuneStep(engine, context, config.train.seed, config.train.dropout_seed),
        rates=rates,
        schedule=Schedule.of(config.optimizer, data.total_steps, peak=1.0),
        data=data,
        journal=journal,
        best=best,
        evaluate=_evaluator(engine, plain, evaluation, corpora, lambda: run.stop.requested),
        keep_model=keep_model,
        recover=run.recovery(journal, go_back, lambda to: Best(**to.state["best"]).is_repeated),
    )
    return trainer, evaluation, run_state


def _is_finished(config: FinetuneConfig, context: RankContext, asked: Mapping[str, Any]) -> bool:
    """Whether a run that is to be resumed has nothing left to do; says so. Raises CheckpointError for another run."""
    output = Path(config.train.output)
    finished = context.run_on_main(lambda: finished_scores(output)) if config.train.resume == "auto" else None
    if finished is None:
        return False
    check_same_run(finished.get("run", asked), asked, output, resume.REMEDIES)
    if context.is_main:
        print(describe_finished(output, finished), flush=True)
        if changed := describe_differences(changed_settings(output, config)):
            print(f"settings that have no effect on a finished run: {changed}; give another --output", flush=True)
    return True


def publish(config: FinetuneConfig, context: RankContext) -> list[str]:
    """Publish the model where that is asked for; a line on it for rank 0."""
    name, folder = config.train.push, Path(config.train.output) / MODEL_FOLDER
    if not name:
        return []
    try:
        address = context.run_on_main(lambda: push(folder, name, config.train.push_public))
    except ConfigError as error:
        raise ConfigError(f"{error}. {folder} is saved; publish it with --resume auto --push NAME") from None
    return [f"published: {address}"] if context.is_main else []


def _journal(
    run: Run,
    engine: TrainingEngine,
    point: ResumePoint,
    best: Best,
    data: TrainingData,
    left_out: LeftOut,
    run_state: Mapping[str, Any],
    description: Description,
) -> Journal:
    log = MetricLog(run.output, run.context, finish_row, point.position.step, best.is_repeated)
    return run.journal(
        engine=engine,
        start=point,
        total_steps=data.total_steps,
        log=log,
        terms=WEIGHTS,
        capture=resume.checkpoint_capture(data.config, run.context, engine, run.output / MODEL_FOLDER, description),
        state_pieces=lambda: held_tensors([engine]),
        left_out=left_out,
        run_state=run_state,
        rates="learning_rate and head_learning_rate",
    )


def _evaluator(
    engine: TrainingEngine, plain: JointModel, evaluation: Evaluation, corpora: Corpora, stopped: Callable[[], bool]
) -> Callable[[], Scores | None]:
    """Scores of the engine's weights on dev, which `plain` then has; None without dev and where a stop was asked."""

    def evaluate() -> Scores | None:
        copy_masters(engine, plain)
        evaluated = None if corpora.dev is None else evaluation.score(plain, corpora.dev, stopped)
        return None if evaluated is None else evaluated[1]

    return evaluate


def opening_lines(
    run: Run, engine: TrainingEngine, start: StartNetwork, corpora: Corpora, data: TrainingData, plan: BatchPlan
) -> list[str]:
    """What the run is made of, printed at its start. A collective."""
    of_all = "" if data.n_sentences == corpora.train.n_sentences else f" of {corpora.train.n_sentences:,}"
    evaluated = "".join(f", {corpus.n_sentences:,} {name}" for name, corpus in corpora.evaluated().items())
    labels = corpora.labels
    relations = how_many(len(labels.relation_types), "relation type") if labels.relation_types else "no relations"
    return [
        *run.describe_machine(engine),
        f"data: {data.n_sentences:,}{of_all} training sentences ({corpora.train.format}){evaluated}; "
        f"{how_many(len(labels.entity_types), 'entity type')}, {relations}",
        *warnings_of(corpora),
        *(f"train: {notice}" for notice in counted(data.notices)),
        start.summary(),
        *language_lines(data.config, start),
        f"batch: up to {plan.global_batch} sentences a step over {how_many(plan.ranks, 'rank')}; "
        f"{how_many(data.epochs, 'epoch')} x {data.steps_per_epoch:,} steps = {how_many(data.total_steps, 'step')}",
    ]


def summarise_training(trainer: Finetuner, context: RankContext, began: float) -> Training:
    """The facts of a training that has ended. A collective."""
    (peak,) = context.max_numbers([peak_memory_gib(context.device)])
    data, position = trainer.data, trainer.journal.position
    return Training(trainer.best, trainer.epoch, position, data.steps_per_epoch, data.n_sentences, began, peak)

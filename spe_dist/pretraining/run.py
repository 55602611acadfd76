"""One pre-training run from checked settings to its last checkpoint, on every rank."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from spe_dist.config.pretraining import Config
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan, Precision, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fragments.tensors import held_tensors
from spe_dist.distributed.sharded_start import sharded_start
from spe_dist.model.kernels import check_compile, choose_kernels, kernel_lines
from spe_dist.model.loading import LoadedEncoder
from spe_dist.pretraining import build, resume
from spe_dist.pretraining.build_engine import build_engine
from spe_dist.pretraining.curves import draw_curves
from spe_dist.pretraining.loop import Trainer, finish_row
from spe_dist.pretraining.step import TERMS, TrainingStep
from spe_dist.training.health.choose_left_out import choose_left_out
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.journal import Journal
from spe_dist.training.metrics import MetricLog
from spe_dist.training.progress import duration
from spe_dist.training.rates.groups import group_rates
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.resume import ResumePoint, engine_state, settle_stage
from spe_dist.training.run import Run
from spe_dist.utils.memory import freeze_garbage_collector


def run_pretraining(
    config: Config, given_ds_config: dict[str, Any], plan: BatchPlan, precision: Precision, context: RankContext
) -> bool:
    """Train to the end (True) or to a requested stop (False). A collective.

    Raises:
        SpeError: what a user can get wrong, before the first step.
        TrainingFailure: training went wrong.
    """
    run = Run(config, context)
    if config.train.compile:
        check_compile(context.device, given_ds_config["zero_optimization"]["stage"])
    data = build.open_data(config)
    steps = build.total_steps(config, data.order)

    def choose() -> tuple[dict[str, Any], ResumePoint, LeftOut]:
        start = resume.choose_start(config, context, run.checkpoints, data.order)
        chosen, start = settle_stage(config.train, given_ds_config, precision, context.ranks, start)
        return chosen, *choose_left_out(config.train, start, context, data.train_ids)

    ds_config, start, left_out = choose()
    with sharded_start(ds_config, precision, context):
        loaded, tokenizer = build.open_encoder(config, data.train)
        engine, moco = build_engine(config, loaded, ds_config, precision, context)
    warning = context.run_on_main(lambda: build.check_disk(config, engine.n_parameters()))
    evaluate = build.evaluator(config, data, plan, engine, moco, context, lambda: journal.agreement())
    resume.begin(start, engine, moco)
    if not run.claim(start):
        _, start, left_out = choose()
        resume.begin(start, engine, moco)
    run.write_settings()
    journal = run.journal(
        engine=engine,
        start=start,
        total_steps=steps,
        log=MetricLog(run.output, context, finish_row, start.position.step),
        terms=TERMS,
        capture=build.checkpoint_capture(
            config, context, engine, moco, loaded, tokenizer, data.train.manifest.language
        ),
        state_pieces=lambda: held_tensors([engine, moco]),
        left_out=left_out,
        run_state={**engine_state(precision, context.ranks, engine.zero_stage), "total_steps": steps},
    )
    journal.say(*opening_lines(run, config, engine, loaded, data, plan, steps), *start.notes, *filter(None, [warning]))
    schedule = Schedule.of(config.optimizer, steps, config.optimizer.learning_rate)
    layers = loaded.bert_config.num_hidden_layers
    trainer = Trainer(
        config=config,
        step=TrainingStep(engine, moco, config, context, journal.agreement),
        schedule=schedule,
        group_rates=group_rates(engine.module, layers, config.optimizer, schedule),
        batches_from=lambda step: build.training_batches(config, data, plan, context, step, steps, left_out.sentences),
        accumulation=plan.accumulation,
        journal=journal,
        data_state=data.order.state_dict,
        evaluate=evaluate,
        recover=run.recovery(journal, lambda point: resume.begin(point, engine, moco)),
    )
    freeze_garbage_collector()
    finished = trainer.run()
    ending = "finished" if finished else f"stopped as asked ({run.stop_reason()})"
    run.end(journal, closing_lines(ending, finished, run.output, journal) if context.is_main else [], finished)
    return finished


def opening_lines(
    run: Run,
    config: Config,
    engine: TrainingEngine,
    loaded: LoadedEncoder,
    data: build.Data,
    plan: BatchPlan,
    steps: int,
) -> list[str]:
    """What the run is made of, printed at its start. A collective."""
    manifest, held_out = data.train.manifest, data.held_out.n_sentences if data.held_out else 0
    epochs = steps * plan.global_batch / data.order.sentences_per_epoch
    bert = loaded.bert_config
    choices = choose_kernels(
        config,
        run.context.device,
        product_dtype(engine.precision) or engine.dtype,
        bert.hidden_size // bert.num_attention_heads,
    )
    return [
        *run.describe_machine(engine, f", encoder from {config.model.encoder or 'random weights'}"),
        f"data: {data.train.n_sentences:,} training and {held_out:,} held-out sentences, vocabulary "
        f"{manifest.vocabulary_size:,}",
        f"batch: {plan}; {steps:,} steps = {epochs:.2f} epochs",
        *kernel_lines(choices, config.train.verbose),
        *build.held_out_warnings(config, held_out),
    ]


def closing_lines(ending: str, finished: bool, output: Path, journal: Journal) -> list[str]:
    """What the run has come to, and the next command to type; draws the curves. For rank 0."""
    step, steps = journal.position.step, journal.progress.total_steps
    curves = draw_curves(output)
    trained = duration(journal.position.trained_s)
    lines = [f"{ending} at step {step:,} of {steps:,} after {trained} of training; {journal.describe_saved()}"]
    if curves is not None:
        lines.append(f"curves: {curves}")
    if step > steps:
        lines[0] = f"nothing to train: {output} is at step {step:,}, this run ends at {steps:,}; raise --steps to go on"
    if step >= steps:
        lines.append(f"next: spe export {shlex.quote(str(output))} ENCODER_FOLDER")
    if not finished:
        lines.append("next: the same command with --resume auto continues")
    return lines

"""One pre-training run from checked settings to its last checkpoint, on every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spe_dist.config.loading import to_yaml
from spe_dist.config.pretraining import Config
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan, Precision, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fence import Fence
from spe_dist.distributed.launch import node_name, placement_table
from spe_dist.distributed.stop import StopRequest
from spe_dist.model import kernels
from spe_dist.model.loading import LoadedEncoder
from spe_dist.pretraining import build, resume
from spe_dist.pretraining.build_engine import build_engine
from spe_dist.pretraining.loop import Trainer
from spe_dist.pretraining.step import TrainingStep
from spe_dist.training.agreement import Agreement
from spe_dist.training.curves import draw_curves
from spe_dist.training.journal import Journal, Saving
from spe_dist.training.metrics import MetricLog
from spe_dist.training.progress import ProgressLine, duration
from spe_dist.training.schedule import Schedule
from spe_dist.utils.memory import freeze_garbage_collector


def run_pretraining(
    config: Config, ds_config: dict[str, Any], plan: BatchPlan, precision: Precision, context: RankContext
) -> None:
    """Train to the end or to a requested stop; what a user can get wrong is an SpeError before the first step."""
    output = Path(config.train.output)
    stop = StopRequest(output if context.is_main else None)  # one rank looks for the file, all hear of it
    data = build.open_data(config)
    steps = build.total_steps(config, data.order)
    fence = Fence(output)
    checkpoints = Checkpoints(output / "checkpoints", config.train.keep_checkpoints, context, fence)
    start = resume.choose_start(config, context, checkpoints, data.order)
    loaded, tokenizer = build.open_encoder(config, data.train)
    engine, moco = build_engine(config, loaded, ds_config, precision, context)
    warning = context.run_on_main(lambda: build.check_disk(config, engine.n_parameters()))
    context.run_on_main(fence.claim)
    if start.checkpoint is not None:
        resume.restore(start.checkpoint, engine, moco, context)
    elif moco is not None:
        moco.start()
    context.run_on_main(lambda: (output / resume.CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8"))
    progress = ProgressLine(steps, enabled=context.is_main)
    for line in [*describe(config, context, engine, loaded, data, plan, steps), *start.notes, *filter(None, [warning])]:
        progress.say(line)

    agreement = Agreement(context, stop, config.train.checkpoint_every_minutes)
    batches = build.training_batches(config, data, plan, context, start.position.step, steps)
    log = MetricLog(output, context, start.position.step)
    write_checkpoint = build.checkpoint_writer(config, context, engine, moco, loaded, tokenizer)
    journal = Journal(
        settings=config.train,
        engine=engine,
        position=start.position,
        log=log,
        progress=progress,
        saving=Saving(checkpoints, write_checkpoint, resume.run_state(context, engine, steps)),
        agreement=agreement,
    )
    trainer = Trainer(
        config=config,
        step=TrainingStep(engine, moco, config, context, agreement),
        schedule=Schedule.of(config.optimizer, steps, config.optimizer.learning_rate),
        batches=batches,
        accumulation=plan.accumulation,
        agreement=agreement,
        journal=journal,
        data_state=data.order.state_dict,
        evaluate=build.evaluator(config, data, plan, engine, moco, context, agreement),
    )
    freeze_garbage_collector()
    finished = trainer.run()
    log.close()
    batches.close()
    reasons = [reason for reason in context.all_gather_object(stop.reason) if reason]
    if context.is_main:
        state = "finished" if finished else f"stopped as asked ({reasons[0]})"
        for line in conclude(state, output, journal):
            progress.say(line)
        if not finished:
            progress.say("Continue with the same command and --resume auto")
    context.barrier()


def describe(
    config: Config,
    context: RankContext,
    engine: TrainingEngine,
    loaded: LoadedEncoder,
    data: build.Data,
    plan: BatchPlan,
    steps: int,
) -> list[str]:
    """What the run is made of, printed at its start. A collective."""
    model = f" {torch.cuda.get_device_name(context.device)}" if context.device.type == "cuda" else ""
    placement = placement_table(context.all_gather_object((context.rank, node_name(), f"{context.device}{model}")))
    manifest, held_out = data.train.manifest, data.held_out.n_sentences if data.held_out else 0
    epochs = steps * plan.global_batch / data.order.sentences_per_epoch
    bert = loaded.bert_config
    choices = kernels.describe(
        config,
        context.device,
        product_dtype(engine.precision) or engine.dtype,
        bert.hidden_size // bert.num_attention_heads,
    )
    return [
        placement,
        f"data: {data.train.n_sentences:,} training and {held_out:,} held-out sentences, vocabulary "
        f"{manifest.vocabulary_size:,}",
        f"batch: {plan}; {steps:,} steps = {epochs:.2f} epochs",
        f"model: {engine.n_parameters():,} parameters, encoder from {config.model.encoder or 'random weights'}; "
        f"ZeRO stage {engine.zero_stage}, {engine.precision}",
        *(f"kernel: {choice.part}: {choice.kernel} ({choice.why})" for choice in choices),
    ]


def conclude(state: str, output: Path, journal: Journal) -> list[str]:
    """The closing lines; draws the curves. For rank 0."""
    step, steps = journal.position.step, journal.progress.total_steps
    saved = journal.saving.checkpoints.folder / f"step_{step:08d}"
    curves = draw_curves(output)
    lines = [
        f"{state} at step {step:,} of {steps:,} after {duration(journal.position.trained_s)} of training; saved {saved}"
    ]
    if curves is not None:
        lines.append(f"curves: {curves}")
    if step > steps:
        lines[0] = f"nothing to train: {saved} is at step {step:,}, this run ends at {steps:,}; raise --steps to go on"
    if step >= steps:
        lines.append(f"plain PyTorch: python tools/convert_checkpoint.py {saved} EXPORT_FOLDER")
    return lines

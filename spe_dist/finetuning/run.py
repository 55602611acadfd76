"""One fine-tuning run from checked settings to its scores, on every rank.

The order matters: what can fail cheaply (corpora, start, output folder, ranks) is checked before the engine is made.
"""

from __future__ import annotations

import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import to_yaml
from spe_dist.distributed.checkpoint import Checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan, Precision, has_float32_weights, product_dtype
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fence import Fence
from spe_dist.distributed.launch import node_name, placement_table
from spe_dist.distributed.stop import StopRequest
from spe_dist.export.folder import EXTRACTOR
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.folder import EXTRACTION_SETTINGS, save_extractor
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.finetuning import resume
from spe_dist.finetuning.data import (
    Corpora,
    TrainingData,
    check_ranks,
    prepare_training,
    read_corpora,
    warnings_of,
)
from spe_dist.finetuning.evaluation import Evaluation, copy_masters
from spe_dist.finetuning.learning_rates import RateGroups, rate_groups
from spe_dist.finetuning.loop import Finetuner, finish_row
from spe_dist.finetuning.results import (
    MODEL_FOLDER,
    Training,
    describe_finished,
    finished_scores,
    write_results,
)
from spe_dist.finetuning.start import SPAN_ENCODER, Start, check_windows, open_start
from spe_dist.finetuning.step import WEIGHTS, FinetuneStep
from spe_dist.pretraining.resume import CONFIG_FILE
from spe_dist.training.agreement import Agreement
from spe_dist.training.journal import Journal, Saving
from spe_dist.training.metrics import MetricLog
from spe_dist.training.optimizer import make_adamw, optimizer_device
from spe_dist.training.progress import ProgressLine, duration
from spe_dist.training.schedule import Schedule
from spe_dist.utils.files import check_free_name
from spe_dist.utils.memory import freeze_garbage_collector, peak_memory_gib
from spe_dist.utils.randomness import Purpose, derive_seed
from spe_dist.utils.wording import how_many


def run_finetuning(
    config: FinetuneConfig, ds_config: dict[str, Any], plan: BatchPlan, precision: Precision, context: RankContext
) -> None:
    """Train, keep the best model, score it; what a user can get wrong is an SpeError before the first step."""
    began = time.monotonic()
    output = Path(config.train.output)
    corpora = read_corpora(config)
    stop = StopRequest(output if context.is_main else None)  # one rank looks for the file, all hear of it
    fence = Fence(output)
    checkpoints = Checkpoints(output / "checkpoints", config.train.keep_checkpoints, context, fence)
    start = open_start(config)
    max_pieces = check_windows(config, start)
    data = prepare_training(config, corpora, start.tokenizer, max_pieces)
    check_ranks(data, context.ranks)
    run_state = resume.run_state(config, corpora, data, ds_config, precision, context.ranks)
    finished = context.run_on_main(lambda: finished_scores(output)) if config.train.resume == "auto" else None
    if finished is not None:
        asked = resume.whatever_the_machine(run_state)
        resume.check_same_run(finished.get("run", asked), asked, output)
        if context.is_main:
            print(describe_finished(output, finished), flush=True)
            if changed := resume.changed_settings(output, config):
                print(f"nothing is done for what is asked for otherwise: {changed}; give another --output", flush=True)
        stop.close()
        return
    resumed = resume.choose_start(config, context, checkpoints, run_state)
    context.run_on_main(lambda: check_free_name(output / MODEL_FOLDER, True, EXTRACTOR))

    model = build_model(config, corpora.labels, start)
    model.spe.encoder.product_dtype = product_dtype(precision)
    twin = copy.deepcopy(model).to(context.device) if needs_twin(precision, ds_config) else None
    engine, rates = build_engine(config, model, ds_config, precision, context)
    plain = model if twin is None else twin
    context.run_on_main(fence.claim)
    if resumed.checkpoint is not None:
        engine.load(resumed.checkpoint)
        context.run_on_main(partial(resume.restore_model, resumed.checkpoint, output / MODEL_FOLDER))
    context.run_on_main(lambda: (output / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8"))
    progress = ProgressLine(data.total_steps, enabled=context.is_main, terms=tuple(WEIGHTS))
    for line in [*describe(config, context, engine, start, corpora, data, plan), *resumed.notes]:
        progress.say(line)

    evaluation = Evaluation(
        ExampleMaker(start.tokenizer, None, max_pieces, config.data.context_pieces),
        context,
        config.data.symmetric,
        product_dtype(precision),
    )

    def evaluate() -> Scores | None:
        copy_masters(engine, plain)
        if corpora.dev is None:
            return None
        evaluated = evaluation.score(plain, corpora.dev, lambda: stop.requested)
        return None if evaluated is None else evaluated[1]

    def keep_model(epoch: int, scores: Scores | None) -> None:
        settings = {**start.settings, **extraction_settings(config, max_pieces)}
        facts = model_facts(config, data, epoch, scores)
        context.run_on_main(
            lambda: save_extractor(output / MODEL_FOLDER, plain, start.tokenizer, corpora.labels, settings, facts)
        )

    agreement = Agreement(context, stop, config.train.checkpoint_every_minutes)
    evaluated = resumed.best.evaluated_epoch
    log = MetricLog(
        output,
        context,
        resumed.position.step,
        finish_row,
        repeated=lambda row: row["kind"] == "evaluation" and row["epoch"] > evaluated,
    )
    write_checkpoint = resume.checkpoint_writer(config, context, engine, output / MODEL_FOLDER)
    journal = Journal(
        settings=config.train,
        engine=engine,
        position=resumed.position,
        log=log,
        progress=progress,
        saving=Saving(checkpoints, write_checkpoint, run_state),
        agreement=agreement,
        rates="learning_rate and head_learning_rate",
    )
    trainer = Finetuner(
        config=config,
        step=FinetuneStep(engine, context, config.train.seed),
        rates=rates,
        schedule=Schedule.of(config.optimizer, data.total_steps, peak=1.0),
        data=data,
        agreement=agreement,
        journal=journal,
        best=resumed.best,
        evaluate=evaluate,
        keep_model=keep_model,
    )
    freeze_garbage_collector()
    ended = trainer.run()
    log.close()
    if ended:
        lines = write_results(config, corpora, evaluation, how_it_went(trainer, context, began), run_state)
        context.run_on_main(lambda: resume.remove_checkpoints(checkpoints))
    else:
        reasons = [reason for reason in context.all_gather_object(stop.reason) if reason]
        lines = [
            f"stopped as asked ({reasons[0]}) in epoch {trainer.epoch + 1:,} of {data.epochs:,}, step "
            f"{journal.position.step:,}, after {duration(journal.position.trained_s)} of training",
            "Continue with the same command and --resume auto",
        ]
    for line in lines:
        progress.say(line)
    stop.close()
    context.barrier()


def build_model(config: FinetuneConfig, labels: Labels, start: Start) -> JointModel:
    """The joint model around the start; its heads are drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.train.seed, Purpose.HEAD_WEIGHTS))
        settings, kernels = config.model, config.train.kernels
        own = settings.context_encoder == "own"
        model = JointModel(start.spe, labels, settings.relation_size, settings.dropout, kernels, own)
        if model.context_encoder is not None and SPAN_ENCODER in start.random:
            model.context_encoder.draw()
        return model


def build_engine(
    config: FinetuneConfig, model: JointModel, ds_config: dict[str, Any], precision: Precision, context: RankContext
) -> tuple[TrainingEngine, RateGroups]:
    """The model in its engine, with a rate for each layer. A collective."""
    model = model.to(context.device)  # before the optimizer is made
    rates = rate_groups(model, model.spe.encoder.config.num_hidden_layers, config.optimizer)
    device = optimizer_device(ds_config, context.device)
    return TrainingEngine(
        model, lambda _: make_adamw(rates.groups, config, device), ds_config, precision, context
    ), rates


def needs_twin(precision: Precision, ds_config: dict[str, Any]) -> bool:
    """Whether the float32 masters stand elsewhere than in the module that is trained."""
    return not has_float32_weights(precision) or ds_config["zero_optimization"]["stage"] == 3


def extraction_settings(config: FinetuneConfig, max_pieces: int) -> dict[str, Any]:
    """What a reader of the fine-tuned folder needs beside the network's settings."""
    values = {**vars(config.data), **vars(config.model), "max_pieces": max_pieces}
    return {name: values[name] for name in EXTRACTION_SETTINGS}


def model_facts(config: FinetuneConfig, data: TrainingData, epoch: int, scores: Scores | None) -> dict[str, Any]:
    """What the card of the fine-tuned folder tells."""
    facts: dict[str, Any] = {
        "start": config.model.start or "random weights",
        "training_sentences": data.n_sentences,
        "epoch": epoch,
        "seed": config.train.seed,
    }
    if scores is not None:
        figures = (("entity", scores.entity), ("relation", scores.relation), ("ent_rel", scores.ent_rel))
        facts |= {f"dev_{name}_f1": round(100 * counts.f1, 2) for name, counts in figures}
    return facts


def describe(
    config: FinetuneConfig,
    context: RankContext,
    engine: TrainingEngine,
    start: Start,
    corpora: Corpora,
    data: TrainingData,
    plan: BatchPlan,
) -> list[str]:
    """What the run is made of, printed at its start. A collective."""
    device = f" {torch.cuda.get_device_name(context.device)}" if context.device.type == "cuda" else ""
    placement = placement_table(context.all_gather_object((context.rank, node_name(), f"{context.device}{device}")))
    of_all = "" if data.n_sentences == corpora.train.n_sentences else f" of {corpora.train.n_sentences:,}"
    evaluated = "".join(f", {corpus.n_sentences:,} {name}" for name, corpus in corpora.evaluated().items())
    labels = corpora.labels
    relations = f"{len(labels.relation_types)} relation types" if labels.relation_types else "no relations"
    return [
        placement,
        f"data: {data.n_sentences:,}{of_all} training sentences ({corpora.train.format}){evaluated}; "
        f"{len(labels.entity_types)} entity types, {relations}",
        *warnings_of(corpora),
        *(f"train: {count:,} {reason}" for reason, count in sorted(data.notices.items())),
        start.describe(),
        f"model: {engine.n_parameters():,} parameters; ZeRO stage {engine.zero_stage}, {engine.precision}",
        f"batch: up to {plan.global_batch} sentences a step over {how_many(plan.ranks, 'rank')}; "
        f"{data.epochs:,} epochs x {data.steps_per_epoch:,} steps = {data.total_steps:,} steps",
    ]


def how_it_went(trainer: Finetuner, context: RankContext, began: float) -> Training:
    """The facts of a training that has ended. A collective."""
    (peak,) = context.max_numbers([peak_memory_gib(context.device)])
    data, position = trainer.data, trainer.journal.position
    return Training(trainer.best, trainer.epoch, position, data.steps_per_epoch, data.n_sentences, began, peak)

"""From settings to a trainer: checks what a user can get wrong, then puts the rooms together.

The order matters: everything that can fail cheaply (shards, vocabulary, batch, output folder, disk) is checked before
the model is built and the engine compiles or allocates anything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from spe_dist.config import Config
from spe_dist.config_loading import load_yaml, resolve, to_yaml
from spe_dist.data.loader import WorkerLoader
from spe_dist.data.order import Order
from spe_dist.data.packing import longest_sequence
from spe_dist.data.store import ShardStore
from spe_dist.data.stream import StepBatch, step_loader
from spe_dist.data.vocabulary import load_tokenizer, vocabulary_sha256
from spe_dist.distributed.checkpoint import Checkpoints, read_state
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.moco import MomentumContrast
from spe_dist.model.loading import LoadedEncoder, load_encoder
from spe_dist.training.evaluation import HeldOutEvaluation, count_yardsticks
from spe_dist.training.journal import Position

CONFIG_FILE = "config.yaml"
START_FOLDER = "start"
WEIGHTS_FILE = "weights.safetensors"
MOCO_FILE = "moco.pt"
OBJECTIVES = ("tbo", "spo", "cspo")
# Bytes a parameter in a checkpoint: 16- or 32-bit weights, masters and two moments of Adam, masters once more by name,
# key average and its compensation.
CHECKPOINT_BYTES_PER_PARAMETER = 4 + 12 + 4 + 8


@dataclass(frozen=True)
class Data:
    """The training and held-out sentences and the order they are read in."""

    train: ShardStore
    held_out: ShardStore | None  # None where the shards hold nothing out
    order: Order


def open_data(config: Config) -> Data:
    """The shards of the run, checked. Raises DataError or ConfigError."""
    assert config.data.shards is not None
    cache = config.data.cache_dir
    store = ShardStore.open(config.data.shards, "train", cache)
    store.check_files()
    manifest = store.manifest
    if manifest.max_pieces > config.data.max_pieces:
        raise ConfigError(
            f"max_pieces={config.data.max_pieces}, but the shards in {config.data.shards} hold sentences of up to "
            f"{manifest.max_pieces} pieces; set max_pieces={manifest.max_pieces}, or make shards with a lower limit"
        )
    train = config.train
    order = Order(store.block_sentences, train.seed, config.data.streams, train.global_batch_sentences, manifest.hash())
    held_out = ShardStore.open(config.data.shards, "held_out", cache)
    return Data(store, held_out if held_out.n_sentences else None, order)


def total_steps(config: Config, order: Order) -> int:
    """Length of the run in steps. Raises ConfigError where the warm-up is longer than that."""
    steps = config.train.steps or max(1, order.steps_for(config.train.epochs))
    if config.optimizer.warmup_steps > steps:
        raise ConfigError(
            f"warmup_steps={config.optimizer.warmup_steps} is longer than the run, {steps} steps; lower "
            "warmup_steps, or raise epochs or steps"
        )
    return steps


def open_encoder(config: Config, store: ShardStore) -> tuple[LoadedEncoder, Any]:
    """The start encoder and the tokenizer, checked against the shards' vocabulary. Raises ConfigError or DataError."""
    source = config.model.tokenizer or config.model.encoder or str(store.tokenizer_folder())
    tokenizer = load_tokenizer(source)
    manifest = store.manifest
    if vocabulary_sha256(tokenizer) != manifest.vocabulary_sha256:
        raise DataError(
            f"the shards in {store.source} were made with a vocabulary of {manifest.vocabulary_size:,} pieces "
            f"({manifest.tokenizer.name}) that is not that of {source} ({len(tokenizer):,} pieces); make the shards "
            f"anew with --tokenizer {source}, or start from an encoder of their vocabulary"
        )
    loaded = load_encoder(
        config.model.encoder, config.model, manifest.vocabulary_size, config.train.seed, config.train.kernels
    )
    if loaded.vocab_size < manifest.vocabulary_size:
        raise DataError(
            f"the encoder {config.model.encoder} embeds {loaded.vocab_size:,} pieces, the shards' vocabulary has "
            f"{manifest.vocabulary_size:,}; make the shards anew with the encoder's own tokenizer"
        )
    positions = loaded.bert_config.max_position_embeddings
    longest = longest_sequence(manifest.max_pieces, config.corruption)
    if longest > positions:
        raise ConfigError(
            f"view_masks={config.corruption.view_masks} gives sequences of up to {longest} pieces, but the encoder has "
            f"{positions} positions; make shards with --max_pieces {positions - (longest - manifest.max_pieces)}"
        )
    return loaded, tokenizer


@dataclass(frozen=True)
class Start:
    """Where the run begins."""

    position: Position
    checkpoint: Path | None
    notes: list[str]


def choose_start(config: Config, context: RankContext, checkpoints: Checkpoints, order: Order) -> Start:
    """A new run in an empty folder, or the checkpoint to continue from. A collective; raises CheckpointError."""
    wanted = config.train.resume
    notes: list[str] = []
    if wanted == "never":
        refuse_output_of_another_run(config.train.output, context)
        return Start(Position(), None, notes)
    if wanted == "auto":
        path, notes = checkpoints.newest_valid()
        if path is None:
            damaged = f" ({'; '.join(notes)})" if notes else ""
            if notes:
                raise CheckpointError(
                    f"no checkpoint in {checkpoints.folder} is whole{damaged}; move the folder away to start anew"
                )
            return Start(Position(), None, [f"nothing to resume in {checkpoints.folder}: starting at step 0"])
    else:
        path = Path(wanted)
        problem = checkpoints.problem_of(path)
        if problem is not None:
            raise CheckpointError(f"resume={wanted}: {problem}; give OUTPUT/checkpoints/step_N, or 'auto'")
        if path.resolve().parent != checkpoints.folder.resolve():
            refuse_output_of_another_run(config.train.output, context)
    state = context.run_on_main(lambda: read_state(path))
    _check_same_run(state, context, order, path)
    context.run_on_main(lambda: check_same_network(resolve([load_yaml(path / CONFIG_FILE)]), config, path))
    names = Position.__dataclass_fields__
    return Start(Position(**{name: state[name] for name in names}), path, notes)


def refuse_output_of_another_run(output: str, context: RankContext) -> None:
    """CheckpointError where a run has begun in `output`. A collective."""
    if context.run_on_main(lambda: (Path(output) / CONFIG_FILE).exists()):
        raise CheckpointError(
            f"output={output} holds another run; continue it with --resume auto, or choose another --output"
        )


def _check_same_run(state: dict[str, Any], context: RankContext, order: Order, path: Path) -> None:
    steps = order.check(state["data"])
    if state["ranks"] != context.ranks:
        raise CheckpointError(
            f"{path} was written by {state['ranks']} ranks, this run has {context.ranks}; resume with "
            f"{state['ranks']} ranks"
        )
    if steps != state["step"]:
        raise CheckpointError(f"{path} is inconsistent: step {state['step']}, but data of {steps} steps; take another")


def check_same_network(saved: Config, config: Config, path: Path) -> None:
    """The settings that a checkpoint's network was built by are this run's. Raises CheckpointError naming one."""
    not_compared = {"encoder", "tokenizer", "dropout"}
    if saved.model.encoder and config.model.encoder:  # which has these sizes itself
        not_compared |= {"hidden_size", "layers", "attention_heads", "intermediate_size"}
    pairs = {name: (value, getattr(config.model, name)) for name, value in vars(saved.model).items()}
    pairs |= {name: (getattr(saved.objectives, name), getattr(config.objectives, name)) for name in OBJECTIVES}
    for name, (value, mine) in pairs.items():
        if name not in not_compared and value != mine:
            raise CheckpointError(
                f"{path} was written with {name}={value}, this run has {mine}; resume with the checkpoint's value, or "
                "start a new run"
            )


def run_state(context: RankContext, engine: TrainingEngine, total_steps: int) -> dict[str, Any]:
    """What a checkpoint says of the run that wrote it, beside its position."""
    return {
        "ranks": context.ranks,
        "zero_stage": engine.zero_stage,
        "precision": engine.precision,
        "total_steps": total_steps,
    }


def check_engine_state(state: dict[str, Any], engine: TrainingEngine, path: Path) -> None:
    """The checkpoint's ZeRO stage and precision are this run's. Raises CheckpointError naming both."""
    for name, mine in (("zero_stage", engine.zero_stage), ("precision", engine.precision)):
        if state[name] != mine:
            raise CheckpointError(
                f"{path} was written with {name}={state[name]}, this run has {mine}; use {state[name]}"
            )


def check_disk(config: Config, parameters: int) -> str | None:
    """Raise CheckpointError where not even one checkpoint fits; a warning where `keep_checkpoints` do not."""
    key_bytes = {"float32": 4, "bfloat16": 2, "float16": 2}[config.moco.queue_dtype] * config.model.contrastive_size
    size = parameters * CHECKPOINT_BYTES_PER_PARAMETER + 2 * config.moco.queue_keys * (key_bytes + 8)
    folder = Path(config.train.output)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    text = f"{folder} has {free / 2**30:.1f} GiB free, a checkpoint takes about {size / 2**30:.1f} GiB"
    if free < size:
        raise CheckpointError(f"{text}; free some space or choose another --output")
    needed = size * (config.train.keep_checkpoints + 1)
    if free < needed:
        return (
            f"warning: {text}, and {config.train.keep_checkpoints} are kept: it may become full; lower keep_checkpoints"
        )
    return None


def write_start(folder: Path, loaded: LoadedEncoder, tokenizer: Any) -> None:
    """What the encoder came with and training does not touch: config, tokenizer files, pooler."""
    folder.mkdir(parents=True, exist_ok=True)
    loaded.bert_config.to_json_file(str(folder / "config.json"))
    tokenizer.save_pretrained(str(folder))
    save_file(loaded.pooler_state, folder / "pooler.safetensors")
    note = {"encoder": loaded.source, "pooler_trained": loaded.pooler_trained}
    (folder / "start.json").write_text(json.dumps(note, indent=1), encoding="utf-8")


def checkpoint_writer(
    config: Config,
    context: RankContext,
    engine: TrainingEngine,
    moco: MomentumContrast | None,
    loaded: LoadedEncoder,
    tokenizer: Any,
) -> Callable[[Path], None]:
    """The function that fills a checkpoint folder; all ranks call it together."""

    def write(folder: Path) -> None:
        engine.save(folder)
        masters = engine.master_weights()
        moco_state = moco.state_dict() if moco is not None else None
        if context.is_main:
            save_file(masters, folder / WEIGHTS_FILE)
            (folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
            write_start(folder / START_FOLDER, loaded, tokenizer)
            if moco_state is not None:
                torch.save(moco_state, folder / MOCO_FILE)

    return write


def restore(path: Path, engine: TrainingEngine, moco: MomentumContrast | None, context: RankContext) -> None:
    """Bring engine and MoCo to the state of a checkpoint. A collective."""
    check_engine_state(context.run_on_main(lambda: read_state(path)), engine, path)
    engine.load(path)
    if moco is not None:
        moco.load_state_dict(torch.load(path / MOCO_FILE, map_location="cpu", weights_only=True))


def evaluator(
    config: Config,
    data: Data,
    plan: BatchPlan,
    engine: TrainingEngine,
    moco: MomentumContrast | None,
    context: RankContext,
) -> Callable[[], dict[str, float]]:
    """The evaluation on the held-out sentences, a collective; no figures where there are none or none are wanted."""
    held_out = data.held_out
    if held_out is None or config.train.evaluate_sentences == 0:
        return dict
    output = Path(config.train.output)
    yardsticks = context.run_on_main(lambda: count_yardsticks(data.train, held_out, config, output))
    evaluation = HeldOutEvaluation(held_out, config, context, context.device, plan.micro_batch, yardsticks)
    return lambda: evaluation(engine, moco.key_module if moco is not None else None)


def training_batches(
    config: Config, data: Data, plan: BatchPlan, context: RankContext, first_step: int, last_step: int
) -> Generator[StepBatch, None, None] | WorkerLoader:
    """This rank's part of the steps first_step .. last_step - 1."""
    return step_loader(
        data.train,
        config.corruption,
        global_batch=plan.global_batch,
        micro_batch=plan.micro_batch,
        rank=context.rank,
        ranks=context.ranks,
        seed=config.train.seed,
        streams=data.order.streams,
        start_step=first_step,
        end_step=last_step,
        loader_workers=config.data.loader_workers,
        prefetch_steps=config.data.prefetch_steps,
        pin_memory=context.device.type == "cuda",
    )

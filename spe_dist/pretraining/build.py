"""From settings to a trainer: checks what a user can get wrong, then puts the parts together.

The order matters: everything that can fail cheaply (shards, vocabulary, batch, output folder, disk) is checked before
the model is built and the engine compiles or allocates anything.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from spe_dist.config.loading import to_yaml
from spe_dist.config.pretraining import Config
from spe_dist.data.batches.corruption import check_corruption
from spe_dist.data.batches.loader import WorkerLoader, step_loader
from spe_dist.data.batches.order import Order
from spe_dist.data.batches.packing import longest_sequence
from spe_dist.data.batches.stream import StepBatch, StepBuilder
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.text.languages import AUTO
from spe_dist.data.text.vocabulary import RESIZE, load_tokenizer, vocabulary_sha256
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import BatchPlan
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fragments.tensors import Captured
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.moco import MomentumContrast
from spe_dist.moco.fragments import Fragmented
from spe_dist.moco.sharded_queue import QueueLayout
from spe_dist.model.loading import LoadedEncoder, load_encoder
from spe_dist.pretraining.evaluation import HeldOutEvaluation, count_yardsticks
from spe_dist.training.journal import WriteCheckpoint
from spe_dist.utils.files import first_existing
from spe_dist.utils.run_files import CONFIG_FILE, START_FOLDER
from spe_dist.utils.wording import how_many, shown_url

ENOUGH_HELD_OUT = 200  # a share is then within 7 points with 95% confidence
# Bytes a parameter in a checkpoint, all in float32: masters, two moments of Adam, key average and its compensation.
MASTER_AND_MOMENTS_BYTES = 4 + 8
AVERAGE_BYTES = 4 + 4


@dataclass(frozen=True)
class Data:
    """The training and held-out sentences and the order they are read in."""

    train: ShardStore
    held_out: ShardStore | None  # None where the shards hold nothing out
    order: Order

    @property
    def train_ids(self) -> range:
        """The ids of the training sentences."""
        return range(self.train.first_sentence_id, self.train.first_sentence_id + self.train.n_sentences)


def open_data(config: Config) -> Data:
    """The shards of the run, checked. Raises DataError or ConfigError."""
    assert config.data.shards is not None
    check_corruption(config.corruption)
    cache = (config.data.cache_dir, config.data.cache_gib, config.data.fetch_timeout_s)
    store = ShardStore.open(config.data.shards, "train", *cache)
    store.check_files()
    manifest = store.manifest
    if manifest.max_pieces > config.data.max_pieces:
        raise ConfigError(
            f"max_pieces={config.data.max_pieces}, but the shards in {shown_url(config.data.shards)} hold sentences of "
            f"up to {manifest.max_pieces} pieces; set max_pieces={manifest.max_pieces}, or make shards with a lower "
            "limit"
        )
    train = config.train
    order = Order(
        store.block_sentences,
        train.seed,
        config.data.streams,
        train.global_batch_sentences,
        manifest.hash(),
        store.shard_blocks if config.data.order == "shards" else None,
    )
    check_cache(store, order, config.data.cache_gib)
    held_out = ShardStore.open(config.data.shards, "held_out", *cache)
    return Data(store, held_out if held_out.n_sentences else None, order)


def check_cache(store: ShardStore, order: Order, cache_gib: float) -> None:
    """Check that shards that are fetched whole need not be fetched again and again.

    Raises:
        ConfigError: the cache is too small for the shards that are read at the same time.
        DataError: the server does not answer.
    """
    if store.is_local or store.has_ranges():
        return
    sizes = [shard.bytes for shard in store.manifest.shards("train")]
    by_shard = order.shard_blocks is not None
    needed = min(sum(sizes), 2 * order.streams * max(sizes)) if by_shard else sum(sizes)
    if needed <= cache_gib * 2**30:
        return
    gib = math.ceil(needed / 2**30 * 10) / 10
    why = "it gives no ranges, or was made by an earlier version"
    if by_shard:
        raise ConfigError(
            f"cache_gib={cache_gib:g}, but {order.streams} streams read so many whole shards of "
            f"{shown_url(store.source)} ({why}) at the same time, each with its next: set cache_gib={gib:g}, or fewer "
            "streams"
        )
    raise ConfigError(
        f"cache_gib={cache_gib:g}, but whole shards of {shown_url(store.source)} are read ({why}), all of them in "
        f"turn: set order=shards, or cache_gib={gib:g}"
    )


def held_out_warnings(config: Config, held_out: int) -> list[str]:
    """A line where the held-out sentences are none, or too few for their figures to say much."""
    evaluated = min(held_out, config.train.evaluate_sentences)
    if config.train.evaluate_sentences == 0 or evaluated >= ENOUGH_HELD_OUT:
        return []
    if held_out == 0:
        return ["warning: the shards hold no sentences out, so nothing is evaluated; make them with --held_out 0.01"]
    remedy = "raise --evaluate_sentences" if held_out > evaluated else "make shards with a larger --held_out"
    return [
        f"warning: only {how_many(evaluated, 'held-out sentence')}: shares may be {evaluated**-0.5:.0%} off by chance; "
        f"{remedy}"
    ]


def total_steps(config: Config, order: Order) -> int:
    """Length of the run in steps. Raises ConfigError where warm-up or freezing are longer."""
    steps = config.train.steps or max(1, order.steps_for(config.train.epochs))
    if config.optimizer.warmup_steps > steps:
        raise ConfigError(
            f"warmup_steps={config.optimizer.warmup_steps} is longer than the run, {steps} steps; lower "
            "warmup_steps, or raise epochs or steps"
        )
    if config.optimizer.freeze_encoder_steps >= steps:
        raise ConfigError(
            f"freeze_encoder_steps={config.optimizer.freeze_encoder_steps} leaves the encoder no step of the run's "
            f"{steps}; lower it, or raise epochs or steps"
        )
    return steps


def open_encoder(config: Config, store: ShardStore) -> tuple[LoadedEncoder, Any]:
    """The start encoder and the tokenizer, checked against the shards' vocabulary. Raises ConfigError or DataError."""
    source = config.model.tokenizer or config.model.encoder or str(store.tokenizer_folder())
    tokenizer = load_tokenizer(source)
    manifest = store.manifest
    if vocabulary_sha256(tokenizer) != manifest.vocabulary_sha256:
        raise DataError(
            f"the shards in {shown_url(store.source)} were made with a vocabulary of {manifest.vocabulary_size:,} "
            f"pieces ({manifest.tokenizer.name}) that is not that of {source} ({len(tokenizer):,} pieces); make the "
            f"shards again with --tokenizer {source}, or start from an encoder of their vocabulary"
        )
    loaded = load_encoder(
        config.model.encoder,
        config.model,
        manifest.vocabulary_size,
        config.train.seed,
        config.train.kernels,
        mlm=config.objectives.mlm and config.model.mlm_decoder != "random",
    )
    if loaded.vocab_size < manifest.vocabulary_size:
        raise DataError(
            f"the encoder {config.model.encoder} embeds {loaded.vocab_size:,} pieces, the shards' vocabulary has "
            f"{manifest.vocabulary_size:,}; make the shards again with the encoder's own tokenizer{RESIZE}"
        )
    positions = loaded.bert_config.max_position_embeddings
    longest, why = manifest.max_pieces, f"the shards in {shown_url(store.source)} give"
    if config.objectives.views:
        longest, why = longest_sequence(longest, config.corruption), f"view_masks={config.corruption.view_masks} gives"
    if longest > positions:
        raise ConfigError(
            f"{why} sequences of up to {longest} pieces, but the encoder has {positions} positions; make shards with "
            f"--max_pieces {positions - (longest - manifest.max_pieces)}"
        )
    return loaded, tokenizer


def queue_bytes(config: Config, ranks: int = 1) -> int:
    """What the two queues of keys and their ids take, or a rank's part where `ranks` share them."""
    key_bytes = {"float32": 4, "bfloat16": 2, "float16": 2}[config.moco.queue_dtype] * config.model.key_size
    return 2 * QueueLayout(config.moco.queue_keys, 0, ranks).rows * (key_bytes + 8)


def checkpoint_bytes(config: Config, parameters: int) -> int:
    """What a checkpoint of a model of so many parameters takes, at most."""
    if not config.objectives.cspo:
        return parameters * MASTER_AND_MOMENTS_BYTES
    return parameters * (MASTER_AND_MOMENTS_BYTES + AVERAGE_BYTES) + queue_bytes(config)


def check_disk(config: Config, parameters: int) -> str | None:
    """Raise CheckpointError where not even one checkpoint fits; a warning where `keep_checkpoints` do not."""
    size = checkpoint_bytes(config, parameters)
    folder = Path(config.train.output)
    free = shutil.disk_usage(first_existing(folder)).free
    text = f"{folder} has {free / 2**30:.1f} GiB free, a checkpoint takes about {size / 2**30:.1f} GiB"
    if free < size:
        raise CheckpointError(f"{text}; free some space or choose another --output")
    needed = size * (config.train.keep_checkpoints + 1)
    if free < needed:
        return (
            f"warning: {text}, and {config.train.keep_checkpoints} are kept: it may become full; lower keep_checkpoints"
        )
    return None


def write_start(folder: Path, loaded: LoadedEncoder, tokenizer: Any, language: str = AUTO) -> None:
    """What training does not touch: config, tokenizer files and pooler of the encoder, and the shards' language."""
    folder.mkdir(parents=True, exist_ok=True)
    loaded.bert_config.to_json_file(str(folder / "config.json"))
    tokenizer.save_pretrained(str(folder))
    save_file(loaded.pooler_state, folder / "pooler.safetensors")
    note = {"encoder": loaded.source, "pooler_trained": loaded.pooler_trained, "language": language}
    (folder / "start.json").write_text(json.dumps(note, indent=1), encoding="utf-8")


def checkpoint_capture(
    config: Config,
    context: RankContext,
    engine: TrainingEngine,
    moco: MomentumContrast | None,
    loaded: LoadedEncoder,
    tokenizer: Any,
    language: str = AUTO,
) -> Callable[[bool], WriteCheckpoint]:
    """What takes hold of the state for a checkpoint, and gives the function that fills its folder.

    `language`: that of the shards.
    """
    states: list[Fragmented] = [engine, *([moco] if moco is not None else [])]

    def capture(copy: bool) -> WriteCheckpoint:
        captured = Captured(states, copy)

        def write(folder: Path, group: Any) -> None:
            captured.write(folder, group)
            if context.is_main:
                (folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
                write_start(folder / START_FOLDER, loaded, tokenizer, language)

        return write

    return capture


def evaluator(
    config: Config,
    data: Data,
    plan: BatchPlan,
    engine: TrainingEngine,
    moco: MomentumContrast | None,
    context: RankContext,
    stop_agreed: Callable[[], bool],
) -> Callable[[], dict[str, float] | None]:
    """The evaluation on the held-out sentences, a collective; no figures where there are none or none are wanted.

    It gives None where `stop_agreed`, called at the end of each micro-batch on all ranks, says that all stop now.
    """
    held_out = data.held_out
    if held_out is None or config.train.evaluate_sentences == 0:
        return dict
    output = Path(config.train.output)
    yardsticks = context.run_on_main(lambda: count_yardsticks(data.train, held_out, config, output))
    evaluation = HeldOutEvaluation(held_out, config, context, context.device, plan.micro_batch, yardsticks, stop_agreed)
    return lambda: evaluation(engine, moco.key_module if moco is not None else None)


def training_batches(
    config: Config,
    data: Data,
    plan: BatchPlan,
    context: RankContext,
    first_step: int,
    last_step: int,
    left_out: Sequence[int] = (),
) -> Generator[StepBatch, None, None] | WorkerLoader:
    """This rank's part of the steps first_step .. last_step - 1; `left_out`: ids of sentences that are not trained."""
    order = data.order.leaving_out([sentence - data.train.first_sentence_id for sentence in left_out])
    rank, ranks = context.rank, context.ranks
    return step_loader(
        StepBuilder(data.train, config.corruption, order, plan.micro_batch, rank, ranks, config.objectives),
        first_step,
        last_step,
        loader_workers=config.data.loader_workers,
        prefetch_steps=config.data.prefetch_steps,
        pin_memory=context.device.type == "cuda",
    )

"""Fine-tune the joint model that extracts entities and relations: one command for one process or many.

    spe finetune --preset paper --train TRAIN --dev DEV --test TEST --start EXPORT --output O
    spe finetune --preset small --train TRAIN --dev DEV --start ENCODER_FOLDER --output O
    deepspeed --num_gpus 2 --module spe_dist.finetune --deepspeed zero2 --start bert-base-cased ...
    torchrun --nproc_per_node 2 -m -- spe_dist.finetune --start ...     (without -- torchrun takes --start for its own)

Starts: an exported SPE folder, a pre-training checkpoint (--start_encoder key: its momentum encoder), OUTPUT/model of
another fine-tuning, any BERT-family checkpoint by name or folder, or none (with --tokenizer).
Leaves OUTPUT/model (the best epoch on dev, one folder for spe predict), scores.json, predictions_dev.json,
predictions_test.json, metrics.jsonl, tensorboard/ and curves.png. --resume auto continues a stopped run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spe_dist.cli.exits import DONE, run_training, stopped_status
from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.cli.options.training import read_options, training_parser
from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import to_yaml
from spe_dist.config.shared import check_batch_divides
from spe_dist.utils.hub import check_names

if TYPE_CHECKING:
    from spe_dist.distributed.deepspeed_config import BatchPlan, Precision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_training(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    parser = training_parser("spe finetune", __doc__, FinetuneConfig)
    options = read_options(parser, argv, FinetuneConfig)
    if options.print_config:
        print(to_yaml(options.config), end="")
        return DONE
    options.config.require_inputs()
    require(*TO_TRAIN)
    check_names(start=options.config.model.start, tokenizer=options.config.model.tokenizer)
    if options.dry_run is not None:
        return _describe(options.config, options.deepspeed, options.dry_run)
    return _train(options.config, options.deepspeed)


def _describe(config: FinetuneConfig, deepspeed: str | None, ranks: int) -> int:
    """What --dry_run prints, by rank 0 alone."""
    from spe_dist.distributed.launch import detect, planned_device
    from spe_dist.finetuning.dry_run import describe_finetuning

    place = detect()
    if place.rank:
        return DONE
    device_type = planned_device(config.train.precision)
    ds_config, plan, precision = _plan(config, deepspeed, ranks or place.ranks, device_type)
    print("\n".join(describe_finetuning(config, ds_config, plan, precision, device_type)))
    print(f"dry run: nothing was trained or written; output would be {config.train.output}")
    return DONE


def _plan(
    config: FinetuneConfig, deepspeed: str | None, ranks: int, device_type: str
) -> tuple[dict[str, Any], BatchPlan, Precision]:
    """DeepSpeed's config, the cut of a batch and the precision of a run."""
    from spe_dist.distributed.deepspeed_config import BatchPlan, choose_precision, complete, load_deepspeed_config

    ds_config = load_deepspeed_config(deepspeed)
    batch = config.train.batch_sentences
    check_batch_divides("batch_sentences", batch, ranks)
    plan = BatchPlan(batch, ranks, 1, batch // ranks, "batch_sentences")
    precision = choose_precision(config, ds_config, device_type, fast_cpu="mixed")
    return complete(ds_config, config, plan, precision), plan, precision


def _train(config: FinetuneConfig, deepspeed: str | None) -> int:
    from spe_dist.distributed.context import start_ranks, stop_ranks
    from spe_dist.distributed.deepspeed_config import check_same_precision
    from spe_dist.distributed.launch import detect
    from spe_dist.finetuning.run import run_finetuning

    context = start_ranks(detect(), config.train.timeout_s, config.train.start_timeout_s)
    ds_config, plan, precision = _plan(config, deepspeed, context.ranks, context.device.type)
    check_same_precision(context.all_gather_object(precision))
    finished = run_finetuning(config, ds_config, plan, precision, context)
    stop_ranks()  # not after an error: other ranks may wait in a collective, and the launcher ends them
    return DONE if finished else stopped_status(context.rank, context.ranks)

"""Fine-tune the joint model that extracts entities and relations: one command for one process or many.

    python spe_dist/finetune.py --preset paper --train TRAIN --dev DEV --test TEST --start EXPORT --output O
    python spe_dist/finetune.py --preset small --train TRAIN --dev DEV --start ENCODER_FOLDER --output O
    deepspeed --num_gpus 2 spe_dist/finetune.py --deepspeed ds_configs/zero2.json --start bert-base-cased ...
    torchrun --nproc_per_node 2 -- spe_dist/finetune.py --start ...     (without -- torchrun takes --start for its own)

Starts: an exported SPE folder, a pre-training checkpoint (--start_encoder key: its momentum encoder), OUTPUT/model of
another fine-tuning, any BERT-family checkpoint by name or folder, or none (with --tokenizer).
Leaves OUTPUT/model (the best epoch on dev, one folder for spe_dist/predict.py), scores.json, predictions_dev.json,
predictions_test.json, metrics.jsonl, tensorboard/ and curves.png. A stopped run goes on with --resume auto.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run by its path: make `spe_dist` importable, and its modules only under that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from spe_dist.cli.options.training import exit_status, training_parser
from spe_dist.config.finetuning import PRESETS, FinetuneConfig, validate
from spe_dist.config.loading import load_config, parse_command_line
from spe_dist.config.shared import check_batch_divides


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 finished or stopped as asked, 1 training failed, 2 a user's error, 130 interrupted."""
    return exit_status(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    parser = training_parser("finetune.py", __doc__, PRESETS, FinetuneConfig)
    arguments = vars(parse_command_line(parser, argv))
    arguments.pop("local_rank", None)
    deepspeed_file = arguments.pop("deepspeed", None)
    config = load_config(
        preset=arguments.pop("preset", None),
        yaml_file=arguments.pop("config", None),
        given=arguments,
        config_class=FinetuneConfig,
        presets=PRESETS,
        check=validate,
    )
    return _train(config, deepspeed_file)


def _train(config: FinetuneConfig, deepspeed_file: str | None) -> int:
    from spe_dist.distributed.context import start_ranks, stop_ranks
    from spe_dist.distributed.deepspeed_config import (
        BatchPlan,
        check_same_precision,
        choose_precision,
        complete,
        has_float32_weights,
        load_deepspeed_config,
    )
    from spe_dist.distributed.launch import detect
    from spe_dist.finetuning.run import run_finetuning

    ds_config = load_deepspeed_config(deepspeed_file)
    context = start_ranks(detect(), config.train.timeout_s)
    batch = config.train.batch_sentences
    check_batch_divides("batch_sentences", batch, context.ranks)
    plan = BatchPlan(batch, context.ranks, 1, batch // context.ranks, "batch_sentences")
    precision = choose_precision(config, ds_config, context.device.type, fast_cpu="mixed")
    check_same_precision(context.all_gather_object(precision))
    if deepspeed_file is None and context.ranks == 1 and has_float32_weights(precision):
        ds_config = {"zero_optimization": {"stage": 0}}  # no second copy of weights and gradients
    run_finetuning(config, complete(ds_config, config, plan, precision), plan, precision, context)
    stop_ranks()  # not after an error: other ranks may wait in a collective, and the launcher ends them
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Pre-train SPE: one command for one process, one machine or many.

    spe pretrain --preset demo
    deepspeed --num_gpus 8 --module spe_dist.pretrain --deepspeed zero2 --preset paper --shards S --output O
    torchrun --nproc_per_node 8 -m spe_dist.pretrain --preset paper --shards S --output O
    sbatch slurm/pretrain.sh --preset paper --shards S --output O

Without --shards it trains the demo preset on made-up text.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spe_dist.cli.exits import DONE, run_training, stopped_status
from spe_dist.cli.options.extras import TO_MAKE_SHARDS, TO_TRAIN, require
from spe_dist.cli.options.training import read_options, training_parser
from spe_dist.config.loading import load_config, to_yaml
from spe_dist.config.pretraining import Config
from spe_dist.errors import ConfigError
from spe_dist.utils.hub import check_names
from spe_dist.utils.run_files import CONFIG_FILE

if TYPE_CHECKING:
    from spe_dist.distributed.context import RankContext


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_training(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    parser = training_parser("spe pretrain", __doc__, Config)
    options = read_options(parser, argv, Config)
    config = options.config
    if config.data.shards is None:
        if options.preset not in (None, "demo"):
            raise ConfigError(
                f"--preset {options.preset} needs text: make shards with spe shards make and give --shards DIR"
            )
        config = load_config(preset="demo", yaml_file=options.config_file, given=options.given)
    if options.print_config:
        print(to_yaml(config), end="")
        return DONE
    require(*TO_TRAIN, *(TO_MAKE_SHARDS if config.data.shards is None else ()))
    check_names(encoder=config.model.encoder, tokenizer=config.model.tokenizer)
    if options.dry_run is not None:
        return _describe(config, options.deepspeed, options.dry_run)
    return _train(config, options.deepspeed, "output" in options.given or options.config_file is not None)


def _train(config: Config, deepspeed_file: str | None, output_given: bool) -> int:
    from spe_dist.distributed.context import start_ranks, stop_ranks
    from spe_dist.distributed.deepspeed_config import (
        check_same_precision,
        choose_precision,
        complete,
        load_deepspeed_config,
        plan_batches,
    )
    from spe_dist.distributed.launch import detect
    from spe_dist.pretraining.run import run_pretraining

    ds_config = load_deepspeed_config(deepspeed_file)
    context = start_ranks(detect(), config.train.timeout_s, config.train.start_timeout_s)
    if config.data.shards is None:
        config = _with_demo_corpus(config, context, output_given)
    plan = plan_batches(config, context.ranks, context.device.type)
    precision = choose_precision(config, ds_config, context.device.type)
    check_same_precision(context.all_gather_object(precision))
    finished = run_pretraining(config, complete(ds_config, config, plan, precision), plan, precision, context)
    stop_ranks()  # not after an error: other ranks may wait in a collective, and the launcher ends them
    return DONE if finished else stopped_status(context.rank, context.ranks)


def _describe(config: Config, deepspeed: str | None, ranks: int) -> int:
    """What --dry_run prints, by rank 0 alone. A demo corpus is made in a folder that is removed again."""
    from spe_dist.distributed.deepspeed_config import choose_precision, complete, load_deepspeed_config, plan_batches
    from spe_dist.distributed.launch import detect, planned_device
    from spe_dist.pretraining.dry_run import describe_pretraining

    place = detect()
    if place.rank:
        return DONE
    ds_config, device_type = load_deepspeed_config(deepspeed), planned_device(config.train.precision)
    with tempfile.TemporaryDirectory() as folder:
        if config.data.shards is None:
            from spe_dist.demo.shards import make_demo_shards

            config = replace(config, data=replace(config.data, shards=str(make_demo_shards(Path(folder)))))
        plan = plan_batches(config, ranks or place.ranks, device_type)
        precision = choose_precision(config, ds_config, device_type)
        ds_config = complete(ds_config, config, plan, precision)
        print("\n".join(describe_pretraining(config, ds_config, plan, precision, device_type)))
    print(f"dry run: nothing was trained or written; output would be {config.train.output}")
    return DONE


def demo_output(config: Config) -> Path:
    """Of the folders OUTPUT, OUTPUT-2, ... the first without a run, or the last with one where it is to be resumed."""
    output = free = Path(config.train.output)
    number = 1
    while (free / CONFIG_FILE).exists():
        output, number = free, number + 1
        free = Path(f"{config.train.output}-{number}")
    return free if config.train.resume == "never" else output


def _with_demo_corpus(config: Config, context: RankContext, output_given: bool) -> Config:
    """The demo preset's config with an output folder of its own and shards of the embedded corpus."""
    from spe_dist.demo.shards import SENTENCES, make_demo_shards

    def prepare() -> tuple[str, str]:
        output = Path(config.train.output) if output_given else demo_output(config)
        corpus = output / "corpus"
        print(
            f"No --shards given: training the demo preset on a corpus of {SENTENCES:,} made-up sentences in "
            f"{corpus}.\nFor a real run: spe shards make --input FILES --output SHARDS --tokenizer NAME, then\n"
            "give --preset paper --shards SHARDS --output RUN  (--encoder NAME for another start)",
            flush=True,
        )
        return str(output), str(make_demo_shards(corpus))

    output, shards = context.run_on_main(prepare)
    return replace(config, train=replace(config.train, output=output), data=replace(config.data, shards=shards))

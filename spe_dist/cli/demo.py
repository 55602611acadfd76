"""The demo, from nothing to drawn relations: what `make pretrain` runs.

Text about a made-up world, shards, pre-training with DeepSpeed ZeRO-2 on all GPUs or on two CPU ranks, export, joint
fine-tuning on the world's labels, scores, and a page with the entities and relations of sentences that no training has
seen. Each stage is a command that you can run yourself: it is shown before it runs, its output is in OUTPUT/logs.

What follows `--` are settings of the pre-training: spe demo -- --steps 100
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser, split_settings
from spe_dist.errors import ConfigError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.run_files import CURVES_FILE, MODEL_FOLDER, SCORES_FILE
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import how_many

if TYPE_CHECKING:
    from spe_dist.utils.stages import Stage

CPU_RANKS = 2
PRESET_PRECISION = "float32"
RECORD = "demo.json"  # in the folder of a demo from its first moment on; at the end, what each stage took
LOGS = "logs"
SHOWN_SENTENCES = 3
NEXT = """
  spe shards make --input TEXT --output SHARDS --tokenizer bert-base-cased
  spe pretrain --shards SHARDS --encoder bert-base-cased --output RUN
  spe export RUN ENCODER
  spe finetune --preset small --start ENCODER --train TRAIN --dev DEV --output TUNED
  spe predict TUNED/model TEXT --html PAGE
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is that of the stage that failed, else as `spe_dist.cli.exits` explains."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv), lasting=True)


def build_parser() -> Parser:
    """The options of `spe demo`."""
    usage = "[--output FOLDER] [--ranks N] [--precision NAME] [-- SETTING ...]"
    parser = Parser("spe demo", usage, __doc__)
    add = parser.add_argument
    add("--output", metavar="FOLDER", default="runs/demo", help="an earlier demo in it is removed first [runs/demo]")
    add("--ranks", metavar="N", type=whole_number(1), help="ranks of the pre-training [all GPUs, or 2 on CPUs]")
    add(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default=PRESET_PRECISION,
        help="of both trainings [float32, the fastest at this size]",
    )
    return parser


def _run(argv: Sequence[str]) -> int:
    own, settings = split_settings(argv)
    options = build_parser().parse(own)
    from spe_dist.utils.stages import StageError, run_stage

    output, began = Path(options.output), time.monotonic()
    stages = plan(output, choose_ranks(options.ranks), options.precision, settings)
    empty(output)
    costs: dict[str, Any] = {}
    for number, stage in enumerate(stages, start=1):
        try:
            costs[stage.name] = asdict(run_stage(stage, number, len(stages), output / LOGS))
        except StageError as failed:
            print(f"error: {failed}", file=sys.stderr)
            return failed.status
        write_atomically(output / RECORD, json.dumps({"stages": costs}, indent=1) + "\n")
    print("\n".join(closing_lines(output, time.monotonic() - began)))
    return 0


def choose_ranks(asked: int | None) -> int:
    """The ranks asked for; else as many GPUs as there are and the demo's batch divides by, else two CPU ranks."""
    import torch

    from spe_dist.config.presets import PRETRAINING

    gpus = torch.cuda.device_count()
    if not gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"
    batch = PRETRAINING["demo"]["global_batch_sentences"]
    return asked or max((ranks for ranks in range(1, gpus + 1) if batch % ranks == 0), default=CPU_RANKS)


def empty(folder: Path) -> None:
    """Make the folder, without the earlier demo that it may hold.

    Raises:
        ConfigError: when it holds anything else.
    """
    if folder.exists():
        if not is_demo(folder):
            raise ConfigError(f"{folder} exists and holds no earlier demo; remove it, or give another --output")
        shutil.rmtree(folder)
    (folder / LOGS).mkdir(parents=True)
    write_atomically(folder / RECORD, "{}\n")


def is_demo(folder: Path) -> bool:
    """Whether a folder holds an earlier demo, whole or broken off, or nothing."""
    return folder.is_dir() and ((folder / RECORD).is_file() or not any(folder.iterdir()))


def plan(folder: Path, ranks: int, precision: str, settings: Sequence[str]) -> list[Stage]:
    """The commands of the demo in `folder`, in their order."""
    from spe_dist.demo import shards
    from spe_dist.demo.sentences import TEXT_FILE, UNSEEN_FILE
    from spe_dist.distributed.ports import free_port
    from spe_dist.utils.stages import Stage

    corpus, run, encoder, tuned = (folder / name for name in ("corpus", "pretraining", "encoder", "extraction"))
    labelled = corpus / "extraction"
    exact = [] if precision == PRESET_PRECISION else ["--precision", precision]
    return [
        Stage("corpus", "Text about a made-up world", "python -m spe_dist.demo.corpus --output", corpus),
        Stage(
            "shards",
            "Shards, and a vocabulary trained on the text",
            *("spe shards make --input", corpus / TEXT_FILE, "--output", corpus / shards.SHARDS_FOLDER),
            *("--train_vocab", shards.VOCABULARY, "--words spaces --held_out", shards.HELD_OUT),
        ),
        Stage(
            "pretraining",
            f"Pre-training on {how_many(ranks, 'rank')} with ZeRO-2",
            *("deepspeed --num_gpus", ranks, "--master_port", free_port(), "--module spe_dist.pretrain"),
            *("--deepspeed zero2 --preset demo --shards", corpus / shards.SHARDS_FOLDER, "--output", run, *exact),
            more=settings,
        ),
        Stage("export", "Export to plain PyTorch", "spe export", run, encoder),
        Stage(
            "finetuning",
            "Fine-tuning: joint extraction of entities and relations",
            *("spe finetune --preset demo --start", encoder, "--train", labelled / "train.json"),
            *("--dev", labelled / "dev.json", "--test", labelled / "test.json", "--output", tuned, *exact),
        ),
        Stage(
            "score",
            "Scores on sentences about names that no training has seen",
            *("spe score --gold", labelled / "test.json", "--predictions", tuned / "predictions_test.json"),
        ),
        Stage(
            "prediction",
            "Prediction, from plain text to a page",
            *("spe predict", tuned / MODEL_FOLDER, corpus / UNSEEN_FILE, "--output", folder / "unseen.jsonl"),
            *("--html", folder / "unseen.html"),
        ),
    ]


def closing_lines(folder: Path, seconds: float) -> list[str]:
    """What was learned and found, where it lies and how to go on."""
    from spe_dist.demo.findings import found_in, what_was_learned
    from spe_dist.extraction.scoring.matching import METRICS
    from spe_dist.extraction.scoring.table import f1_line
    from spe_dist.training.metrics import read_rows
    from spe_dist.training.progress import duration
    from spe_dist.utils.run_files import METRICS_FILE

    run, tuned = folder / "pretraining", folder / "extraction"
    scores = json.loads((tuned / SCORES_FILE).read_text(encoding="utf-8"))["test"]
    records = map(json.loads, (folder / "unseen.jsonl").read_text(encoding="utf-8").splitlines())
    places = [
        (folder / "unseen.html", "a page of such sentences with all that was found in them: open it in a browser"),
        (run / CURVES_FILE, "losses and held-out figures of the pre-training"),
        (folder / "encoder", "the pre-trained encoder, for transformers.AutoModel and spe finetune --start"),
        (tuned / MODEL_FOLDER, "the extractor, for spe predict and spe_dist.Extractor"),
        (folder / "corpus", "text, shards and labelled sentences"),
    ]
    return [
        f"\nDone in {duration(seconds)}.\n\nLearned in pre-training:",
        *what_was_learned(read_rows(run / METRICS_FILE, "evaluation")),
        f"\nFound in {how_many(scores['sentences'], 'sentence')} about people and firms that no training has seen:",
        f1_line({metric: scores[metric]["f1"] for metric in METRICS}),
        *found_in(records, SHOWN_SENTENCES),
        "\nWhere it lies:",
        *aligned([(f"  {place}", what) for place, what in places], "<"),
        "\nNext, with text and labels of your own:",
        *NEXT.strip("\n").splitlines(),
    ]


if __name__ == "__main__":
    sys.exit(main())

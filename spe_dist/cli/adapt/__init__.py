"""Continue the pre-training of an encoder on text of your own: shards, pre-training, export, in one command.

    spe adapt --text FILES --encoder bert-base-cased --output ENCODER

First it says how long the training will take on this machine, which it measures with a few steps; --estimate ends
there. Each stage is a command that you can run yourself: it is shown before it runs, its output is in WORK/logs. The
same command continues what was stopped, by Ctrl-C or by a fault. The settings are those of `--preset adapt` with
--objectives; the page "Is it worth it?" of the documentation has what is known of their use.

What follows `--` are settings of the pre-training: spe adapt ... -- --learning_rate 5e-5
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spe_dist.cli.adapt.objectives import DEFAULT_OBJECTIVES, OBJECTIVES
from spe_dist.cli.exits import run_command
from spe_dist.cli.options.numbers import number, whole_number
from spe_dist.cli.options.parser import Parser, split_settings


def build_parser() -> Parser:
    """The options of `spe adapt`."""
    usage = "--text FILES --encoder NAME --output ENCODER [options] [-- SETTING ...]"
    parser = Parser("spe adapt", usage, __doc__)
    add = parser.add_argument
    add("--text", nargs="+", required=True, metavar="FILES", help="what `spe shards make --input` takes")
    add("--encoder", required=True, metavar="NAME", help="name or folder of a BERT-family checkpoint to start from")
    add("--output", required=True, metavar="ENCODER", help="folder of the encoder that is written")
    add("--work", metavar="WORK", help="folder of shards, checkpoints and logs [ENCODER-work]")
    add(
        "--objectives",
        choices=tuple(OBJECTIVES),
        default=DEFAULT_OBJECTIVES,
        help="masked language modelling, the three of SPE (1.5 times as long and more), or all four (twice and more) "
        f"[{DEFAULT_OBJECTIVES}]",
    )
    add("--passes", type=number(0.001), default=3.0, metavar="X", help="epochs: passes over the text [3]")
    add("--ranks", type=whole_number(1), metavar="N", help="ranks of the pre-training [all GPUs, or one process]")
    add("--language", metavar="CODE", help="of the text [auto: by its script]")
    add("--estimate", action="store_true", help="only say how long it will take")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is that of the stage that failed, else as `spe_dist.cli.exits` explains."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv), lasting=True)


def _run(argv: Sequence[str]) -> int:
    own, settings = split_settings(argv)
    options = build_parser().parse(own)
    from spe_dist.cli.adapt.stages import Adaptation

    return Adaptation.of(options, settings).run()


if __name__ == "__main__":
    sys.exit(main())

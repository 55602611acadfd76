"""Measure parts of the system on this machine, and calculate what it would do on many.

spe benchmark pretrain --size 6x384 --ranks 1,2
spe benchmark parts
spe benchmark checkpoint --size base --ranks 2
spe benchmark data --ranks 8
spe benchmark scaling --size base --ranks 8,64,1024
spe benchmark extraction --train FILE --start NAME
spe benchmark prediction --model OUTPUT/model --corpus FILE --neighbours 0,1,4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spe_dist.cli.benchmark import checkpoint, data, extraction, parts, prediction, pretrain, scaling
from spe_dist.cli.exits import run_command
from spe_dist.cli.options.parser import choose_command, help_on_commands

COMMANDS = {
    "pretrain": "sentences a second of pre-training, its parts, and a plain form of it, by a plain product's rate",
    "parts": "parts of a step of pre-training beside their plain forms",
    "checkpoint": "time and bytes of a checkpoint of pre-training, beside DeepSpeed's own files",
    "data": "an index of a million blocks, waiting for a distant server, what reading shard by shard loses",
    "scaling": "what a step of pre-training costs on many GPUs: time, memory, bytes, and what to set; calculated",
    "extraction": "sentences a second of fine-tuning and of prediction",
    "prediction": "sentences a second of prediction on a CPU beside other busy processes",
}
_MODULES = {
    "pretrain": pretrain,
    "parts": parts,
    "checkpoint": checkpoint,
    "data": data,
    "scaling": scaling,
    "extraction": extraction,
    "prediction": prediction,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    help_text = help_on_commands("spe benchmark", __doc__ or "", COMMANDS)
    name = choose_command("spe benchmark", argv, list(COMMANDS), help_text)
    if name is not None:
        _MODULES[name].run(_MODULES[name].parser().parse(argv[1:]))

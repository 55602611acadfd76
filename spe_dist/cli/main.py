"""The command `spe`: finds the command that was typed and runs its file. Nothing else is loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.parser import choose_command, help_on_commands
from spe_dist.errors import ConfigError

COMMANDS = {  # in the order in which people meet them; each is a module of `spe_dist.cli`
    "demo": "all steps on made-up text: pre-training, export, fine-tuning, scores",
    "shards": "make, verify and show shards of pre-training text",
    "pretrain": "pre-train an encoder on shards",
    "adapt": "continue the pre-training of an encoder on text of your own, in one command",
    "export": "turn a training checkpoint into plain PyTorch",
    "finetune": "fine-tune a model that extracts entities and relations",
    "predict": "find entities and relations in text",
    "thresholds": "choose probability thresholds for entities and relations on dev",
    "score": "score predictions against gold",
    "compare": "show two systems' predictions side by side",
    "corpus": "inspect and convert corpora with entities and relations",
    "experiments": "run all experiments of a table, and print it",
    "benchmark": "measure the speed of this machine",
    "doctor": "report what this machine offers: devices, kernels, leftovers of killed runs",
}
ELSEWHERE = {  # what a command may be called in other programs
    "train": "pretrain or finetune",
    "convert": "export",
    "evaluate": "score",
    "eval": "score",
    "extract": "predict",
    "infer": "predict",
    "preprocess": "shards make",
}
ABOUT = "Pre-training of span and span pair encoders, and joint extraction of entities and relations."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments begin with; its exit status is explained in `spe_dist.cli.exits`."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if len(arguments) > 1 and arguments[0].startswith("--local_rank="):
        del arguments[0]  # `deepspeed --module spe_dist COMMAND` puts it there; the environment has it too
    chosen: list[str] = []

    def choose() -> None:
        if arguments[0] in ELSEWHERE:
            raise ConfigError(f"{arguments[0]} is called {ELSEWHERE[arguments[0]]} here; spe --help lists all")
        name = choose_command("spe", arguments, list(COMMANDS), help_on_commands("spe", ABOUT, COMMANDS))
        chosen.extend([name] if name else [])

    status = run_command(choose)
    return importlib.import_module(f"spe_dist.cli.{chosen[0]}").main(arguments[1:]) if chosen else status


if __name__ == "__main__":
    sys.exit(main())

"""The command `spe`: finds the command that was typed and runs its file. Nothing else is loaded."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from spe_dist import __version__
from spe_dist.cli.exits import USER_ERROR

# Command, the module whose `main` runs it, and what it does.
COMMANDS = {
    "demo": ("spe_dist.cli.demo", "corpus, pre-training, conversion and results, from nothing"),
    "shards": ("spe_dist.cli.shards", "make, verify and show shards of pre-training text"),
    "pretrain": ("spe_dist.pretrain", "pre-train an encoder on shards"),
    "export": ("spe_dist.cli.export", "turn a training checkpoint into plain PyTorch"),
    "finetune": ("spe_dist.finetune", "fine-tune a model that extracts entities and relations"),
    "predict": ("spe_dist.predict", "find entities and relations in text"),
    "score": ("spe_dist.cli.score", "score predictions against gold"),
    "compare": ("spe_dist.cli.compare", "draw two systems' predictions side by side"),
    "corpus": ("spe_dist.cli.corpus", "inspect and convert corpora with entities and relations"),
    "experiments": ("spe_dist.cli.experiments", "run the rows of a table, and print it"),
    "benchmark": ("spe_dist.cli.benchmark", "measure the speed of this machine"),
    "doctor": ("spe_dist.cli.doctor", "say what this machine offers: devices, kernels, leftovers of killed runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: that of the command; 2 where there is no such command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"spe_dist {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        suggestion = f", did you mean {near[0]!r}?" if near else ""
        print(f"error: unknown command {name!r}{suggestion}; `spe --help` lists all", file=sys.stderr)
        return USER_ERROR
    return importlib.import_module(COMMANDS[name][0]).main(arguments[1:])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: spe COMMAND [options]",
            "",
            "Pre-training of span and span pair encoders, and joint extraction of entities and relations.",
            "",
            *lines,
            "",
            "`spe COMMAND --help` explains one of them.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

"""Turn a training checkpoint into plain PyTorch: a BertModel for transformers, the SPE parts beside it.

    spe export CHECKPOINT OUTPUT
    spe export --from_pspe FILE OUTPUT

CHECKPOINT is a run's output folder (its latest checkpoint is taken), its folder of checkpoints, or one of these. One
process on a CPU does it; neither a launcher nor DeepSpeed nor a GPU takes part, whatever the checkpoint was trained on.
That of a fine-tuning becomes a model for `spe predict`, with the weights of its step instead of its best epoch's.

OUTPUT is then loaded by
    transformers.AutoModel.from_pretrained(OUTPUT)    and AutoTokenizer: a BertModel, pooler included
    spe_dist.SpanPairEncoder.from_pretrained(OUTPUT)  span and span pair vectors of words
    spe_dist.export.load_pretraining_model(OUTPUT)    with the heads of TBO and SPO, to train on
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.errors import ConfigError, SpeError


def build_parser() -> Parser:
    """The options of `spe export`; which of the paths are needed depends on --from_pspe and --torch."""
    command = Parser("spe export", "CHECKPOINT OUTPUT [options], or --from_pspe FILE OUTPUT", __doc__)
    command.add_argument(
        "paths", nargs="*", type=Path, metavar="CHECKPOINT OUTPUT", help="what to read, and the folder to write"
    )
    command.add_argument(
        "--encoder",
        choices=("query", "key"),
        default="query",
        help="query: the trained encoder (float32 masters); key: the momentum encoder (its average), without the heads "
        "of TBO and SPO (only an imported --from_pspe has them there)",
    )
    command.add_argument(
        "--torch",
        type=Path,
        metavar="FILE",
        help="also (or, without OUTPUT, only) write one state_dict for torch.load(FILE, weights_only=True)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier export in OUTPUT and FILE")
    command.add_argument(
        "--push",
        metavar="NAME",
        help="also publish OUTPUT on the Hugging Face hub, as NAME or USER/NAME, for you alone; needs a token with "
        "write access (`hf auth login`, or HF_TOKEN)",
    )
    command.add_argument("--push_public", action="store_true", help="what --push makes is for everybody to see")
    pspe = command.add_argument_group("checkpoints of the predecessor's code (Receiling/PSPE)")
    pspe.add_argument("--from_pspe", type=Path, metavar="FILE", help="read the state_dict of its pre-training model")
    pspe.add_argument(
        "--attention_heads",
        type=whole_number(1),
        metavar="N",
        help="of its BERT; FILE does not hold them [hidden size / 64]",
    )
    pspe.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="its tokenizer: a name, a folder or a vocab.txt [bert-base-cased where the number of pieces is its]",
    )
    return command


def choose_paths(options: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """(checkpoint, output), each None where it is not needed. Raises ConfigError."""
    wanted = ["OUTPUT"] if options.from_pspe else ["CHECKPOINT", "OUTPUT"]
    given = list(options.paths)
    if options.torch and len(given) == len(wanted) - 1:
        given.append(None)
    if len(given) != len(wanted):
        raise ConfigError(f"expected {' and '.join(wanted)}, got {len(options.paths)} paths; see --help")
    return (None, given[0]) if options.from_pspe else (given[0], given[1])


def convert(options: argparse.Namespace) -> None:
    """Read the parts, write what was asked for, say what it is. Raises SpeError."""
    checkpoint, output = choose_paths(options)
    if not options.from_pspe and (options.attention_heads is not None or options.tokenizer is not None):
        raise ConfigError("--attention_heads and --tokenizer go with --from_pspe; our checkpoints tell both themselves")
    if options.push and not output:
        raise ConfigError("--push publishes OUTPUT; give one")
    from transformers.utils.logging import disable_progress_bar

    from spe_dist.export.checkpoint import read_checkpoint, unfinished
    from spe_dist.export.folder import SPE_CONFIG, save_state_dict, write_folder
    from spe_dist.export.pspe import read_pspe
    from spe_dist.export.push import check_push, push
    from spe_dist.utils.files import check_free_file, check_free_name

    disable_progress_bar()
    if checkpoint is not None and _convert_fine_tuning(checkpoint, output, options):
        return
    if output:
        check_free_name(output, options.overwrite, SPE_CONFIG)
    if options.torch:
        check_free_file(options.torch, options.overwrite)
        if output and Path(options.torch).absolute() == Path(output).absolute():
            raise ConfigError(f"--torch {options.torch} is OUTPUT, which becomes a folder; name a file beside it")
    if options.push:
        check_push(options.push)
    if options.from_pspe:
        parts = read_pspe(options.from_pspe, options.encoder, options.attention_heads, options.tokenizer)
        if parts.tokenizer is None:
            print("warning: no tokenizer is known, OUTPUT will have none; give --tokenizer", file=sys.stderr)
    else:
        assert checkpoint is not None
        parts = read_checkpoint(checkpoint, options.encoder)
        if part := unfinished(checkpoint):
            print(f"warning: {checkpoint} is a part of a run, {part}", file=sys.stderr)
    print(f"{parts.encoder} encoder of {parts.facts.get('checkpoint', options.from_pspe)}: {parts.n_weights:,} weights")
    if output:
        write_folder(parts, output, options.overwrite)
        print(f"{output}: config.json, model.safetensors, spe_config.json, spe_heads.safetensors, README.md")
        if options.push:
            print(f"published: {push(output, options.push, options.push_public)}")
        print(f"next: spe finetune --start {shlex.quote(str(output))} --train FILE --dev FILE --test FILE --output RUN")
    if options.torch:
        save_state_dict(parts, options.torch, options.overwrite)
        print(f"{options.torch}: one state_dict")


def _convert_fine_tuning(checkpoint: Path, output: Path | None, options: argparse.Namespace) -> bool:
    """Write a fine-tuned folder where the checkpoint is a fine-tuning's; whether it is one. Raises SpeError."""
    from spe_dist.export.checkpoint import unfinished
    from spe_dist.extraction.joint.checkpoint import export_extractor, is_fine_tuning

    if not is_fine_tuning(checkpoint):
        return False
    if options.encoder == "key" or options.torch or options.push or output is None:
        raise ConfigError(
            f"{checkpoint} is of a fine-tuning, which is exported as a whole model: give OUTPUT, and leave --encoder "
            "key, --torch and --push out"
        )
    name, n_weights = export_extractor(checkpoint, output, options.overwrite)
    if part := unfinished(checkpoint):
        print(f"warning: {checkpoint} is a part of a run, {part}", file=sys.stderr)
    print(f"fine-tuned model of {name}: {n_weights:,} weights")
    print(f"next: spe predict {shlex.quote(str(output))} FILE")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    given = sys.argv[1:] if argv is None else argv
    return run_command(lambda: convert(build_parser().parse(given)), errors=(SpeError, OSError), lasting=True)

"""Run the experiments of a file, and print their tables.

    spe experiments run demo
    spe experiments run paper --set ace05=DATA/ace05 --only spe --dry_run
    spe experiments table demo --split dev

`run` makes what is missing: shards, pre-training, exports, fine-tuning for each row, training share and seed. Finished
pieces are skipped, half-done ones resumed; a failed one is reported and the others go on. Ctrl-C lets what runs save
and stops; the same command continues. Then, as `table` does, it prints the tables and writes them to OUTPUT/tables as
Markdown, CSV and PNG.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from spe_dist import experiments
from spe_dist.cli.exits import run_command
from spe_dist.cli.options.extras import TO_MAKE_SHARDS, TO_TRAIN, require
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser, choose_command, help_on_commands
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.reading.json_file import read_object
from spe_dist.utils.wording import nearest

VALUES_FILE = "values.json"
FILES = Path(experiments.__file__).parent / "files"


COMMANDS = {"run": "make what is missing, then print the tables", "table": "print the tables of what is finished"}
ONLY = "rows, corpora or tables by name, or pieces of work by pattern, such as 'rows/spe/*'; may be repeated [all]"
DEVICES = "GPUs, of which each piece without a launcher sees one; as many pieces run at once unless --jobs says fewer"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    given = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(given), lasting=given[:1] == ["run"])


def _run(argv: Sequence[str]) -> int:
    help_text = help_on_commands("spe experiments", __doc__ or "", COMMANDS)
    name = choose_command("spe experiments", argv, list(COMMANDS), help_text)
    if name == "run":
        return run(run_parser().parse(argv[1:]))
    return print_tables(table_parser().parse(argv[1:])) if name else 0


def run_parser() -> Parser:
    """The options of `spe experiments run`."""
    parser = Parser("spe experiments run", "FILE.yaml|NAME [options]", __doc__)
    _add_common_options(parser)
    add = parser.add_argument
    add("--jobs", type=whole_number(1), metavar="N", help="pieces that run at once [the file's `jobs`, else 1]")
    add("--devices", default="", metavar="0,1,..", help=DEVICES)
    add("--renew", action="store_true", help="remove pieces made with other settings, and make them again")
    add("--dry_run", action="store_true", help="print the pieces, their state and commands; run nothing")
    return parser


def table_parser() -> Parser:
    """The options of `spe experiments table`."""
    parser = Parser("spe experiments table", "FILE.yaml|NAME [options]", __doc__)
    _add_common_options(parser)
    return parser


def _add_common_options(parser: Parser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE.yaml|NAME", help=f"experiment file, or one of the package's: {', '.join(known_files())}")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="one of the file's `values`")
    add("--only", action="append", default=[], metavar="NAME", help=ONLY)
    add("--seeds", type=_seeds, default=(), metavar="N,N,..", help="in place of those of the file [the file's]")
    add("--split", choices=("dev", "test"), default="test", help="which scores the tables show")


def known_files() -> list[str]:
    """Names of the experiment files that the package brings."""
    return sorted(path.stem for path in FILES.glob("*.yaml"))


def find_file(name: str) -> Path:
    """The experiment file of a path, or of the name of one that the package brings.

    Raises:
        ConfigError: where there is neither.
    """
    if Path(name).exists():
        return Path(name)
    if name.removesuffix(".yaml") in known_files():
        return FILES / f"{name.removesuffix('.yaml')}.yaml"
    known = known_files()
    raise ConfigError(
        f"experiment file {name} does not exist; the package has {', '.join(known)}{nearest(name, known)}"
    )


def run(options: argparse.Namespace) -> int:
    """Run what is missing of an experiment file, and print its tables; the exit status."""
    from spe_dist.experiments.file import read_experiment
    from spe_dist.experiments.plan import make_plan, output_folder
    from spe_dist.experiments.record import Requests
    from spe_dist.experiments.runner import Runner, alone_in, describe_plan, refuse_changed, still_needed

    given = parse_values(options.set)
    experiment = read_experiment(find_file(options.file), given, options.seeds)
    plan = make_plan(experiment, options.only)
    output = output_folder(experiment)
    requests = Requests(plan, output)
    plan = still_needed(plan, requests)
    if options.dry_run:
        print("\n".join(describe_plan(plan, requests)))
        return 0
    require(*TO_TRAIN, *TO_MAKE_SHARDS)
    devices = tuple(filter(None, options.devices.split(",")))
    jobs = options.jobs if options.jobs is not None else len(devices) or experiment.jobs
    with alone_in(output, plan):
        refuse_changed(plan, requests, options.renew)
        runner = Runner(plan, requests, jobs, devices)
        # Where the file has a value of its own, that is what holds when none is given.
        open_values = {name: v for name, v in remembered(output).items() if experiment.values.get(name) is None}
        (output / VALUES_FILE).write_text(json.dumps(open_values | given, indent=1) + "\n", encoding="utf-8")
        status = runner.run()
    print()
    print_tables(options)
    return status


def print_tables(options: argparse.Namespace) -> int:
    """Print the tables that hold one of the chosen rows, and write all of these to OUTPUT/tables."""
    from spe_dist.experiments.file import read_experiment
    from spe_dist.experiments.plan import output_folder
    from spe_dist.experiments.report import write_report

    given = parse_values(options.set)
    experiment = read_experiment(find_file(options.file), given)
    earlier = remembered(output_folder(experiment))
    known = {name: value for name, value in earlier.items() if name in experiment.values}
    experiment = read_experiment(find_file(options.file), known | given, options.seeds)
    for line in write_report(experiment, options.only, options.split):
        print(line)
    return 0


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(map(whole_number(), text.split(",")))


def parse_values(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE arguments. Raises ConfigError."""
    values = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {text!r}: give NAME=VALUE")
        values[name] = value
    return values


def remembered(output: Path) -> dict[str, str]:
    """What earlier runs were given for the file's values, so that `table` needs no --set."""
    try:
        found = read_object(output / VALUES_FILE, "remove it")
    except (OSError, DataError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}

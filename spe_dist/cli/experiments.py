"""Run the experiments of a file, and print their tables.

    spe experiments run spe_dist/experiments/files/demo.yaml
    spe experiments run spe_dist/experiments/files/paper.yaml --set ace05=DATA/ace05 --only spe --dry_run
    spe experiments table spe_dist/experiments/files/demo.yaml --split dev

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

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.numbers import whole_number
from spe_dist.errors import ConfigError

VALUES_FILE = "values.json"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="\n".join((__doc__ or "").splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|table")
    run = commands.add_parser("run", help="make what is missing, then print the tables")
    table = commands.add_parser("table", help="print the tables of what is finished")
    for command in (run, table):
        add = command.add_argument
        add("file", type=Path, metavar="FILE.yaml", help="experiment file, as in spe_dist/experiments/files/")
        add("--set", action="append", default=[], metavar="NAME=VALUE", help="one of the file's `values`")
        add("--only", action="append", default=[], metavar="NAME", help=ONLY)
        add("--seeds", type=_seeds, default=(), metavar="N,N,..", help="in place of those of the file")
        add("--split", choices=("dev", "test"), default="test", help="which scores the tables show [test]")
    run.add_argument("--jobs", type=int, metavar="N", help="pieces that run at once [the file's `jobs`, else 1]")
    run.add_argument("--devices", default="", metavar="0,1,..", help=DEVICES)
    run.add_argument("--renew", action="store_true", help="remove pieces made with other settings and make them anew")
    run.add_argument("--dry_run", action="store_true", help="print the pieces, their state and commands; run nothing")
    return parser


ONLY = "rows, corpora or tables by name, or pieces of work by pattern, such as 'rows/spe/*'; may be repeated [all]"
DEVICES = "GPUs, of which each piece without a launcher sees one; as many pieces run at once unless --jobs says fewer"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all finished, 1 a piece failed, 2 a user's error, 130 stopped."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: run(options) if options.command == "run" else print_tables(options))


def run(options: argparse.Namespace) -> int:
    from spe_dist.experiments.file import read_experiment
    from spe_dist.experiments.plan import make_plan, output_folder
    from spe_dist.experiments.record import Requests
    from spe_dist.experiments.runner import Runner, alone_in, describe_plan, refuse_changed

    given = parse_values(options.set)
    experiment = read_experiment(options.file, given, options.seeds)
    plan = make_plan(experiment, options.only)
    output = output_folder(experiment)
    requests = Requests(plan, output)
    if options.dry_run:
        print("\n".join(describe_plan(plan, requests)))
        return 0
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
    experiment = read_experiment(options.file, given)
    earlier = remembered(output_folder(experiment))
    known = {name: value for name, value in earlier.items() if name in experiment.values}
    experiment = read_experiment(options.file, known | given, options.seeds)
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
        return json.loads((output / VALUES_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


if __name__ == "__main__":
    sys.exit(main())

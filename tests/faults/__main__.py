"""Put faults into small runs and see whether they go on as if nothing had been.

    python -m tests.faults run --minutes 10              kinds of faults in turn; what is in the results is passed over
    python -m tests.faults run --case KIND/SEED/NUMBER   one case again, with its logs kept
    python -m tests.faults table                         the table of all results so far
    python -m tests.faults report docs/faults.md         writes it into the page

Results are one line a case in RESULTS/results.jsonl; logs of failed cases stay in RESULTS/failed. As root the harness
has a /dev/shm of its own, so that what a run leaves there is seen, and small file systems for full disks.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process without a thread pool can be forked safely
os.environ.update(DS_ACCELERATOR="cpu", MPLBACKEND="Agg", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from tests.faults import results
from tests.faults.attempts import ROOT, FaultError, adopt_orphans, import_for_ranks
from tests.faults.case import OWN_MEMORY, Case, CaseId, Skipped
from tests.faults.kinds import KINDS
from tests.faults.results import Result
from tests.faults.runs import Runs

MARKS = ("<!-- faults: begin -->", "<!-- faults: end -->")


def main() -> int:
    options = parser().parse_args()
    file = options.results / "results.jsonl"
    if options.command == "run":
        kinds_with(options.only)
        own_shared_memory()
        return run(options)
    found = in_order(results.read(file))
    if options.command == "table":
        print("\n".join([*results.table(found), "", *results.summary(found)]))
        return 0
    write_report(options.page, found)
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)
    for name in ("run", "table", "report"):
        command = commands.add_parser(name)
        command.add_argument(
            "--results", type=Path, default=ROOT / "runs" / "faults", help="folder of results and logs"
        )
        if name == "report":
            command.add_argument("page", type=Path)
        if name == "run":
            command.add_argument("--minutes", type=float, default=10.0)
            command.add_argument("--cases", type=int, default=10**9, help="end after so many")
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--only", nargs="*", default=[""], help="kinds whose name has one of these words")
            command.add_argument("--case", default="", help="this one alone: KIND/SEED/NUMBER")
    return top


def own_shared_memory() -> None:
    """Start again in a mount namespace with a /dev/shm of its own, as root; else go on, where /dev/shm is empty."""
    if os.environ.get(OWN_MEMORY):
        return
    if os.geteuid() == 0 and shutil.which("unshare"):
        inside = 'mount -t tmpfs none /dev/shm && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", inside, "sh", sys.executable, "-m", "tests.faults", *sys.argv[1:]]
        os.environ[OWN_MEMORY] = "1"
        os.execvp(command[0], command)


def kinds_with(words: Sequence[str]) -> list[str]:
    """The kinds with one of these words in their name. Ends the program where there are none."""
    chosen = [name for name in KINDS if any(word in name for word in words)]
    if not chosen:
        raise SystemExit(f"no kind of fault has {' or '.join(words)} in its name: {'; '.join(KINDS)}")
    return chosen


def case_ids(seed: int, kinds: Sequence[str]) -> Iterator[CaseId]:
    """These kinds in turn, without end."""
    number = 0
    while True:
        for name in kinds:
            yield CaseId(name, seed, number)
        number += 1


def run(options: argparse.Namespace) -> int:
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "results.jsonl"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nodes and Slurm's daemons end with the harness
    import_for_ranks()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="spe-faults-") as folder:
        runs = Runs(Path(folder) / "data")
        runs.make_data()
        done = set() if options.case else {result.case for result in results.read(file)}
        ids = [CaseId.parse(options.case)] if options.case else case_ids(options.seed, kinds_with(options.only))
        deadline, tried, failed = time.monotonic() + options.minutes * 60, 0, 0
        for case_id in ids:
            if str(case_id) in done:
                continue
            if time.monotonic() > deadline or tried >= options.cases:
                break
            tried += 1
            result = try_case(case_id, runs, Path(folder) / "case", options.results / "failed", bool(options.case))
            results.append(file, result)
            failed += result.outcome == results.FAILED
            print(described(result), flush=True)
    found = in_order(results.read(file))
    print("\n".join(["", *results.table(found), "", *results.summary(found)]))
    return 1 if failed else 0


def in_order(found: list[Result]) -> list[Result]:
    """By kind, as `KINDS` has them; kinds that are no longer there come last."""
    place = {name: number for number, name in enumerate(KINDS)}
    return sorted(found, key=lambda result: place.get(result.kind, len(place)))


def try_case(case_id: CaseId, runs: Runs, folder: Path, kept: Path, keep: bool) -> Result:
    """Run one case; its logs are kept where it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = Case(case_id, runs, folder, random.Random(str(case_id)))
    began, outcome, why = time.monotonic(), results.SURVIVED, ""
    try:
        KINDS[case_id.kind](case)
    except Skipped as reason:
        outcome, why = results.SKIPPED, str(reason)
    except FaultError as error:
        outcome, why = results.FAILED, str(error)
    except Exception:  # the night goes on
        outcome, why = results.FAILED, f"the harness itself failed:\n{traceback.format_exc()}"
    finally:
        case.end()
    if outcome == results.FAILED or keep:
        target = kept / re.sub(r"[^\w.-]+", "_", str(case_id))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target, symlinks=True)
        (target / "why.txt").write_text(f"{case_id}\n{case.setup.name}\n{case.moments}\n{why}\n")
    step_s = runs.reference(case.setup).step_s if outcome == results.SURVIVED else 0.0
    case.remove_files()
    return Result(
        case=str(case_id),
        kind=case_id.kind,
        launcher=case.launcher,
        setup=case.setup.name,
        outcome=outcome,
        why=why,
        faults=case.faults,
        moments=tuple(case.moments),
        steps_lost=case.steps_lost,
        step_s=step_s,
        ended_s=tuple(case.ended_s),
        resume_s=tuple(case.resume_s),
        seconds=time.monotonic() - began,
        commit=commit(),
    )


def described(result: Result) -> str:
    """A line on a case; a failed one can be repeated by it."""
    place = f"{result.launcher}, {result.setup}: {'; '.join(result.moments) or 'nothing put in'}"
    line = f"{result.outcome} {result.seconds:5.1f} s  {result.case}  ({place})"
    if result.outcome == results.FAILED:
        line += f"\n  {result.why}\n  repeat: python -m tests.faults run --case '{result.case}'"
    return line if result.outcome != results.SKIPPED else f"{line}: {result.why}"


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def write_report(page: Path, found: list[Result]) -> None:
    """Put table and summary between the marks of a page."""
    text = page.read_text() if page.is_file() else ""
    if not all(mark in text for mark in MARKS):
        sys.exit(f"error: {page} is no page with {' and '.join(MARKS)}; give docs/faults.md")
    begin, end = (text.index(mark) for mark in MARKS)
    body = "\n".join([*results.table(found), "", *(f"- {line}" for line in results.summary(found))])
    page.write_text(f"{text[:begin]}{MARKS[0]}\n\n{body}\n\n{text[end:]}")


if __name__ == "__main__":
    sys.exit(main())

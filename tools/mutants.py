#!/usr/bin/env python3
"""Do the tests see it? Put plausible bugs into copies of the package, one at a time, and run the tests that should.

    mutants.py [WORD ...] [--workers N] [--time_limit_s S]

The bugs stand in tests/mutants/*.yaml: a file of the package, its exact text, the text with the bug, and the tests that
concern it. A bug is caught where one of them fails or does not end in time. One that survives needs a reason in its
entry (`survives`), or a test. Exit status 1: a survivor without a reason, a reason that is out of date, or fewer than
95% caught.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "mutants"
CAUGHT_SHARE = 0.95
PASSED, FAILED, INTERRUPTED = 0, 1, 2  # pytest's exit statuses; 2: a test module could not be imported
MARGIN_S = 60.0  # for what pytest itself does before and after the time limit of a test
# Imported once, not for every bug: it takes longer than most of the tests.
IMPORTED_ONCE = ["deepspeed", "hypothesis", "pytest", "spacy", "torch", "transformers.models.bert.modeling_bert"]
_SERVER = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Mutant:
    """One plausible bug."""

    bug: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""  # why no test catches it

    def applied_to(self, text: str) -> str:
        """The file's text with the bug in it.

        Raises:
            ValueError: the entry no longer fits the file.
        """
        found = text.count(self.old)
        if found != 1 or self.old == self.new:
            why = "its old text is its new text" if self.old == self.new else f"its old text occurs {found} times"
            raise ValueError(f"mutant '{self.bug}' does not fit {self.file}: {why}; bring its entry up to date")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """What the tests made of a mutant."""

    mutant: Mutant
    is_caught: bool
    how: str
    seconds: float


def read_mutants(folder: Path = FOLDER) -> list[Mutant]:
    """All entries, in order. Each list gives the file, the tests of all its bugs, and the bugs.

    Raises:
        ValueError: an entry lacks something, or two have the same name.
    """
    import yaml

    mutants: list[Mutant] = []
    for path in sorted(folder.glob("*.yaml")):
        for part in yaml.safe_load(path.read_text(encoding="utf-8")):
            for entry in part["bugs"]:
                tests = entry.pop("tests", part.get("tests"))
                mutants.append(Mutant(file=part["file"], tests=tuple(tests.split()), **entry))
    names = [mutant.bug for mutant in mutants]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"mutants with the same name: {', '.join(repeated)}")
    return mutants


def copy_project(folder: Path) -> None:
    """What git knows of the project or would add to it, as it stands in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def run_tests(tests: Sequence[str], folder: Path, time_limit_s: float) -> tuple[int | None, str]:
    """(pytest's exit status, what it printed) in a copy of the project; None: it did not end in time."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        printed = Path(temporary) / "printed"
        process = _SERVER.Process(target=_run_pytest, args=(tests, folder, time_limit_s, printed))
        process.start()
        process.join(time_limit_s * max(1, len(tests)) + MARGIN_S)
        status = process.exitcode
        if status is None:
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        return status, printed.read_text(encoding="utf-8", errors="replace")


def _run_pytest(tests: Sequence[str], folder: Path, time_limit_s: float, printed: Path) -> None:
    """In a process of its own, which has imported large libraries already, but nothing of the package."""
    os.setsid()
    output = os.open(printed, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    os.environ.update(PYTHONPATH=str(folder), HYPOTHESIS_PROFILE="mutants")
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    sys.dont_write_bytecode = True
    import pytest

    options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    status = pytest.main([*options, f"--timeout={time_limit_s:g}", *tests])
    sys.stdout.flush()
    os._exit(int(status))


def try_mutant(mutant: Mutant, folder: Path, time_limit_s: float) -> Outcome:
    """Run the mutant's tests on a copy of the project that has its bug; the copy is as before afterwards.

    Raises:
        ValueError: the entry does not fit the code, or names a test that is not there.
    """
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    began = time.monotonic()
    try:
        path.write_text(mutant.applied_to(text), encoding="utf-8")
        status, output = run_tests(mutant.tests, folder, time_limit_s)
    finally:
        path.write_text(text, encoding="utf-8")
    if status not in (None, PASSED, FAILED, INTERRUPTED):
        raise ValueError(f"mutant '{mutant.bug}': its tests {' '.join(mutant.tests)} cannot be run\n{output[-2000:]}")
    how = "no end in time" if status is None else _first_failure(output)
    return Outcome(mutant, status != PASSED, how, time.monotonic() - began)


def _first_failure(output: str) -> str:
    found = (line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR ")))
    return next(found, "").partition(" - ")[0].partition(" ")[2]


def try_all(mutants: Sequence[Mutant], workers: int, time_limit_s: float) -> Iterator[Outcome]:
    """The outcomes in the order of the mutants; each worker has a copy of the project.

    Raises:
        ValueError: the tests fail without any bug, or an entry is out of date.
    """
    for mutant in mutants:
        mutant.applied_to((ROOT / mutant.file).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary, ThreadPoolExecutor(workers) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            copy_project(Path(temporary) / str(number))
            free.put(Path(temporary) / str(number))

        def in_copy(function: Callable[[Path], Any]) -> Any:
            folder = free.get()
            try:
                return function(folder)
            finally:
                free.put(folder)

        def check_that_it_passes(test: str) -> None:
            status, output = in_copy(lambda folder: run_tests([test], folder, time_limit_s))
            if status != PASSED:
                raise ValueError(f"{test} does not pass without any bug ({status}):\n{output[-4000:]}")

        list(pool.map(check_that_it_passes, dict.fromkeys(test for mutant in mutants for test in mutant.tests)))
        yield from pool.map(lambda m: in_copy(lambda folder: try_mutant(m, folder, time_limit_s)), mutants)


def report(outcomes: Sequence[Outcome]) -> bool:
    """Print the sum; whether all is as it should be."""
    caught = sum(outcome.is_caught for outcome in outcomes)
    share = caught / len(outcomes)
    unexplained = [o.mutant.bug for o in outcomes if not o.is_caught and not o.mutant.survives]
    out_of_date = [o.mutant.bug for o in outcomes if o.is_caught and o.mutant.survives]
    print(f"\n{caught} of {len(outcomes)} bugs caught ({share:.1%})")
    for outcome in outcomes:
        if not outcome.is_caught and outcome.mutant.survives:
            print(f"survives: {outcome.mutant.bug}: {outcome.mutant.survives}")
    for bug in unexplained:
        print(f"SURVIVES WITHOUT A REASON: {bug}: write a test that sees it, or the reason into its entry")
    for bug in out_of_date:
        print(f"CAUGHT NOW: {bug}: remove `survives` from its entry")
    return share >= CAUGHT_SHARE and not unexplained and not out_of_date


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only bugs with one of these in name or file")
    parser.add_argument("--workers", type=int, default=2, help="bugs that are tried at once (default 2)")
    parser.add_argument("--time_limit_s", type=float, default=120.0, help="for one test (default 120)")
    options = parser.parse_args()
    mutants = read_mutants()
    if options.words:
        mutants = [m for m in mutants if any(word in f"{m.file} {m.bug}" for word in options.words)]
    if not mutants:
        print("no bug is of that name", file=sys.stderr)
        return 2
    os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", DS_LOG_LEVEL="error")  # as tests/conftest.py has it
    _SERVER.set_forkserver_preload(IMPORTED_ONCE)
    outcomes = []
    began = time.monotonic()
    try:
        for outcome in try_all(mutants, options.workers, options.time_limit_s):
            outcomes.append(outcome)
            word = "caught  " if outcome.is_caught else "SURVIVES"
            print(f"{word} {outcome.seconds:5.0f} s  {outcome.mutant.bug}  [{outcome.how}]", flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    is_good = report(outcomes)
    print(f"{(time.monotonic() - began) / 60:.0f} minutes, {options.workers} workers")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

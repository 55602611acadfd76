"""A check from its options to its summary. Imports no torch: it must outlive whatever a stage does to the device.

gpu_check.py OUT                          all stages, on the GPU; in small where there is none
gpu_check.py OUT --only machine,profile   some of them
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from spe_dist.benchmark.gpu_check.plan import STAGES, Plan, chosen
from spe_dist.benchmark.gpu_check.record import RUN, SUMMARY_FILE, Record, read_rows
from spe_dist.benchmark.gpu_check.runner import DONE, Runner, Stage
from spe_dist.benchmark.gpu_check.summary import summary
from spe_dist.benchmark.machine import Start, machine_line
from spe_dist.errors import SpeError
from spe_dist.utils.commands import search_path

ROOT = Path(__file__).resolve().parents[3]
HAS_GPU = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 7)"
NO_GPU = 7
MINUTES, SMALL_MINUTES = 10.0, 25.0  # a small check waits for a CPU that others use too
SMALL_SENTENCES, SMALL_STEPS = 1_200, 30
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """0: all went well; 1: a stage did not; 2: wrong options; 130: interrupted."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        plans = chosen(filter(None, options.only.split(",")))
        return _check(options, plans)
    except SpeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "gpu_check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("out", type=Path, help="folder for results.jsonl, log.txt, summary.md and profile.txt; results are added to it")
    add("--minutes", type=float, metavar="X", help=f"for everything; stages share them [{MINUTES:g}, on a GPU]")
    add("--only", default="", metavar="STAGE,..", help=f"of {', '.join(plan.name for plan in STAGES)}")
    add("--data", type=Path, metavar="DIR", help="data of tools/wheelhouse.sh [made first]")
    add("--work", type=Path, metavar="DIR", help="folder for runs, kept [one that is removed at the end]")
    add("--small", action="store_true", help="tiny sizes, as without a GPU")
    return parser


def _check(options: argparse.Namespace, plans: Sequence[Plan]) -> int:
    start = Start.now()
    record = Record(options.out.resolve())
    environment = _environment()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(work / "inductor")
        small = options.small or not _has_gpu(environment)
        if small:  # what it takes is no figure then: one thread a process disturbs others least
            environment.setdefault("OMP_NUM_THREADS", "1")
        command = shlex.join(sys.argv)
        record.add("", {"name": RUN, "command": command, "small": small, "machine": machine_line(start)})
        data = options.data.resolve() if options.data else work / "data"
        if any(plan.trains for plan in plans) and not _make(data, environment, small):
            print(f"no data in {data}, and none could be made: stages that train will fail", flush=True)
        status = _run(options, plans, record, environment, (data, work), small)
    record.close()
    text = summary(read_rows(record.folder), plans)
    (record.folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    print(text)
    return status


def _run(
    options: argparse.Namespace,
    plans: Sequence[Plan],
    record: Record,
    environment: dict[str, str],
    folders: tuple[Path, Path],
    small: bool,
) -> int:
    """All stages; the exit status."""
    stages = [
        Stage(plan.name, plan.small_s if small else plan.limit_s, _command(plan, record.folder, *folders, small))
        for plan in plans
    ]
    minutes = options.minutes or (SMALL_MINUTES if small else MINUTES)
    left_s = 60 * minutes - (time.monotonic() - record.began)
    runner = Runner(record, left_s, environment, say=lambda line: print(line, flush=True))
    try:
        ends = runner.run(stages)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if set(ends.values()) == {DONE} else 1


def _command(plan: Plan, out: Path, data: Path, work: Path, small: bool) -> tuple[str, ...]:
    command = [sys.executable, "-m", __package__ or "", plan.name, f"--data={data}", f"--work={work}", f"--out={out}"]
    return (*command, *["--small"] * small)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _environment() -> dict[str, str]:
    """Of all stages: this checkout's package, no network, output as it comes."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": search_path(),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "Agg",
    }


def _has_gpu(environment: dict[str, str]) -> bool:
    """Whether torch sees one; asked in a process of its own, which also brings torch's files into memory.

    A torch that cannot be loaded is found by every stage, and said there.
    """
    done = subprocess.run([sys.executable, "-c", HAS_GPU], env=environment)
    return done.returncode != NO_GPU


def _make(data: Path, environment: dict[str, str], small: bool) -> bool:
    """Make the data where they are not there; whether they are there then."""
    sentences = ["--sentences", str(SMALL_SENTENCES), "--steps", str(SMALL_STEPS)] if small else []
    command = [sys.executable, "-m", f"{__package__}.data", str(data), *sentences]
    return subprocess.run(command, env=environment).returncode == 0

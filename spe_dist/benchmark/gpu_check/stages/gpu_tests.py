"""The stage `tests`: those tests of the network that need a GPU."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from spe_dist.benchmark.gpu_check.commands import ROOT, Task, give_failure, reason, run_logged
from spe_dist.benchmark.gpu_check.record import give

MARK = "pytest.mark.gpu"
OF_OTHER_STAGES = ("tests/pretraining/test_gpu.py", "tests/benchmark/")  # they train and measure
IN_SMALL = ("tests/model/test_products.py",)


def check_tests(task: Task) -> bool:
    """Runs them with pytest; without a GPU a few others."""
    file = task.work / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={file}"]
    command += ["-m", "gpu", *files_of_gpu_tests()] if task.on_gpu and not task.small else IN_SMALL
    status, text = run_logged(task, command, task.left_s())
    if not file.is_file():
        return give_failure("tests", reason(status, text))
    counts, failures = read_report(file)
    give("tests", **counts)
    for name, message in failures.items():
        give_failure(name, message)
    return status == 0 and counts["passed"] > 0


def files_of_gpu_tests() -> list[str]:
    """Those that hold tests for a GPU, by their paths in the checkout; whole runs are left out."""
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if MARK in file.read_text(encoding="utf-8")]
    names = [file.relative_to(ROOT).as_posix() for file in files]
    return [name for name in names if not name.startswith(OF_OTHER_STAGES)]


def read_report(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    """(how many passed, failed and were skipped; why each that failed did) of pytest's XML."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures = {}
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        wrong = [entry for entry in case if entry.tag in ("failure", "error")]
        if wrong:
            counts["failed"] += 1
            message = (wrong[0].get("message") or "no message").strip().splitlines()
            failures[f"{case.get('classname')}.{case.get('name')}"] = message[0][:300] if message else ""
        elif any(entry.tag == "skipped" for entry in case):
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
    return counts, failures

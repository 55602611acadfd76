import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from project import ROOT

from spe_dist.utils.parallel import map_in_order

LATE = """
    import multiprocessing, os, signal, sys, time
    from spe_dist.utils.parallel import end_with_parent

    def work(method):
        parent = multiprocessing.parent_process()
        while os.getppid() == parent.pid if method == "fork" else parent.is_alive():
            time.sleep(0.05)
        end_with_parent(forked=method == "fork")
        time.sleep(600)

    if __name__ == "__main__":
        process = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=sys.argv[1:])
        process.start()
        pids = [process.pid]
        if sys.argv[1] == "fork":  # holds what this process held open, and lives on
            pids.append(os.fork())
            if not pids[-1]:
                time.sleep(600)
        print(*pids, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


FORKS = """
    import multiprocessing, os, signal, time
    from spe_dist.utils.parallel import forks_end_with_this_process

    if __name__ == "__main__":
        with forks_end_with_this_process():
            manager = multiprocessing.get_context("fork").Manager()
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                grandchild = os.fork()
                if grandchild:
                    os.write(writer, b"%d" % grandchild)
                time.sleep(600)
            grandchild = int(os.read(reader, 20))
        outside = os.fork()
        if not outside:
            time.sleep(600)
        time.sleep(1)
        assert open(f"/proc/{grandchild}/stat").read().split()[2] == "S", "it ended though its parent has not"
        print(outside, child, grandchild, manager._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_forks_of_a_library_end_with_the_process_that_was_killed(tmp_path):
    program, said = tmp_path / "program.py", tmp_path / "said"
    program.write_text(textwrap.dedent(FORKS))
    with open(said, "wb") as output:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, str(program)], env=environment, stdout=output, timeout=240, check=False)
    outside, *inside = map(int, said.read_text().split())
    deadline = time.monotonic() + 60
    while any(map(runs, inside)) and time.monotonic() < deadline:
        time.sleep(0.1)
    others_run = runs(outside)
    os.kill(outside, signal.SIGKILL)
    assert not any(map(runs, inside)) and len(inside) == 3 and others_run


def runs(pid):
    return os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_that_looks_for_its_parent_only_after_that_was_killed_ends(tmp_path, method):
    program, said = tmp_path / "program.py", tmp_path / "said"
    program.write_text(textwrap.dedent(LATE))
    with open(said, "wb") as output:
        command = [sys.executable, str(program), method]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, timeout=240, check=False)
    pid, *others = map(int, said.read_text().split())
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.1)
    for other in others:
        os.kill(other, signal.SIGKILL)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_tasks_which_are_drawn_as_they_are_needed(processes):
    drawn = []

    def tasks():
        for number in range(40):
            drawn.append(number)
            yield number

    results = map_in_order(_later_ones_sooner, tasks(), processes)
    assert next(results) == 0 and len(drawn) < 10
    assert list(results) == [number * number for number in range(1, 40)]


def _later_ones_sooner(number: int) -> int:
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number * number

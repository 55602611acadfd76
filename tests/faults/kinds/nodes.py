"""Two nodes in network namespaces: `torchrun --nnodes 2`, and `deepspeed --hostfile` over SSH; cables that are cut."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from spe_dist.distributed.ports import free_port
from tests.faults.attempts import ROOT, SERVERS, Attempt, launch, launched_environment
from tests.faults.case import Case, Skipped
from tests.faults.injection import Plan
from tests.faults.kinds.drawing import any_setup, draw_trap, kind, wait_s, wait_until
from tests.faults.kinds.launchers import ANY
from tests.faults.network import Nodes, Unavailable
from tests.faults.runs import Setup

CUT_NOTICED_S = 8  # --timeout_s of runs whose cable is cut
START_NOTICED_S = 8  # --start_timeout_s of runs in which a rank may be killed at its start


def torchrun_on(nodes: Nodes, setup: Setup, arguments: list[str], folder: Path, plan: Plan) -> Attempt:
    """`torchrun --nnodes 2`, typed on both nodes."""
    torchrun, script = str(Path(sys.executable).parent / "torchrun"), str(ROOT / "spe_dist" / f"{setup.program}.py")
    port, commands = free_port(), {}
    for rank, name in enumerate(nodes.names):
        words = [torchrun, "--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(rank)]
        words += ["--master_addr", nodes.names[0], "--master_port", str(port), "--", script, *arguments]
        commands[name] = nodes.command(name, words)
    return launch(commands, folder, launched_environment(folder, plan))


def deepspeed_on(nodes: Nodes, setup: Setup, arguments: list[str], folder: Path, plan: Plan) -> Attempt:
    """`deepspeed --hostfile`, typed on the first node; it reaches both by SSH."""
    (folder / "hostfile").write_text("".join(f"{name} slots=1\n" for name in nodes.names))
    environment = launched_environment(folder, plan)
    # deepspeed passes on PYTHON... by itself, everything else by this file.
    passed_on = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "PATH", "SPE_FAULT_PLAN")
    (folder / "environment").write_text("".join(f"{name}={environment[name]}\n" for name in passed_on))
    environment["DS_ENV_FILE"] = str(folder / "environment")
    words = [str(Path(sys.executable).parent / "deepspeed"), "--hostfile", str(folder / "hostfile")]
    words += ["--master_port", str(free_port()), str(ROOT / "spe_dist" / f"{setup.program}.py"), *arguments]
    return launch({"launcher": nodes.command(nodes.names[0], words)}, folder, environment)


def on_two_nodes(case: Case, launcher: str) -> Nodes:
    """Have the case's runs start on two new nodes. Skipped where they cannot be had."""
    case.setup = any_setup(case.rng)
    nodes = Nodes(case.folder / "nodes")
    case.at_end.append(nodes.stop)
    try:
        nodes.start(ssh=launcher == "deepspeed")
    except Unavailable as reason:
        raise Skipped(str(reason)) from None
    SERVERS.update(nodes.server_pids())
    start = deepspeed_on if launcher == "deepspeed" else torchrun_on
    case.launcher = f"{launcher}, 2 nodes"
    case.starter = lambda setup, arguments, folder, plan: start(nodes, setup, arguments, folder, plan)
    return nodes


def kill_on_nodes(case: Case, launcher: str) -> None:
    on_two_nodes(case, launcher)
    trap = draw_trap(case, case.rng.choice(["step", "saving", "rows", "start-up"]))
    attempt = case.start(trap, given=[f"--start_timeout_s={START_NOTICED_S}"])
    case.expect_end(attempt, ANY)
    case.fired(attempt)
    case.finish()


def stop_on_nodes(case: Case, launcher: str) -> None:
    """The file STOP: all ranks save and leave."""
    on_two_nodes(case, launcher)
    step = case.rng.randint(1, 6)
    attempt = case.start()
    wait_until(attempt, lambda: case.steps_done() >= step or attempt.poll())
    (case.output / "STOP").touch()
    case.fault_from_outside(f"STOP after step {step}")
    case.expect_end(attempt, ANY)
    case.finish()


def cut_node(case: Case, launcher: str) -> None:
    """The cable is cut: nobody is told. All end within the time-out; with the cable back the run goes on."""
    nodes = on_two_nodes(case, launcher)
    trap = draw_trap(case, case.rng.choice(["step", "saving", "rows"]), "pause")
    attempt = case.start(trap, given=[f"--timeout_s={CUT_NOTICED_S}"])
    wait_until(attempt, lambda: bool(attempt.notes("fired")) or attempt.poll())
    nodes.cut()
    attempt.signal(trap.rank, signal.SIGCONT)
    case.fired(attempt)
    wait_s(attempt, 3 * CUT_NOTICED_S)
    nodes.heal()
    case.expect_end(attempt, ANY, noticed_s=120)
    case.finish()


for _launcher in ("torchrun", "deepspeed"):
    kind(f"{_launcher} on 2 nodes: a rank is killed")(lambda case, launcher=_launcher: kill_on_nodes(case, launcher))
    kind(f"{_launcher} on 2 nodes: stopped by file")(lambda case, launcher=_launcher: stop_on_nodes(case, launcher))
    kind(f"{_launcher} on 2 nodes: a node is cut off")(lambda case, launcher=_launcher: cut_node(case, launcher))

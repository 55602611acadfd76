"""Training on two nodes without Slurm: started, stopped and resumed by `torchrun --nnodes` and `deepspeed --hostfile`.

The nodes are network namespaces of this machine (tests/faults/network.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from spe_dist.cli.exits import DONE, STOPPED
from spe_dist.training.metrics import read_rows
from tests.faults.injection import Plan
from tests.faults.kinds.nodes import deepspeed_on, torchrun_on
from tests.faults.network import Nodes, Unavailable
from tests.faults.runs import Runs, Setup, comparable

pytestmark = [pytest.mark.nodes, pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]

SETUP = Setup(stage=2)
STARTERS = {"torchrun": torchrun_on, "deepspeed": deepspeed_on}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        nodes.start(ssh=True)
        yield nodes
    except Unavailable as reason:
        pytest.skip(str(reason))
    finally:
        nodes.stop()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("runs") / "data")
    runs.make_data()
    return runs


@pytest.fixture(scope="module")
def undisturbed(runs, run_ranks, tmp_path_factory):
    """Rows of the same run on two ranks of this machine."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"

    def train(arguments):
        from spe_dist import pretrain

        return pretrain.main(arguments)

    assert run_ranks(train, 2, runs.arguments(SETUP, output)) == [DONE, DONE]
    return comparable(output)


def test_each_node_has_its_own_name_and_reaches_the_other(nodes):
    for name, other in (nodes.names, nodes.names[::-1]):
        asked = subprocess.run(nodes.command(name, ["ssh", other, "hostname"]), capture_output=True, text=True)
        assert asked.stdout.strip() == other, asked.stderr
        here = subprocess.run(nodes.command(name, ["hostname"]), capture_output=True, text=True)
        assert here.stdout.strip() == name


def test_a_cut_cable_loses_what_is_sent_and_a_healed_one_does_not(nodes):
    first, second = nodes.names
    ask = nodes.command(first, ["ssh", "-o", "ConnectTimeout=1", second, "hostname"])
    nodes.cut()
    assert subprocess.run(ask, capture_output=True).returncode == 255
    nodes.heal()
    assert subprocess.run(ask, capture_output=True).returncode == 0


@pytest.mark.parametrize("launcher", STARTERS)
def test_a_run_on_two_nodes_is_stopped_and_resumed_as_if_it_had_not_been(launcher, nodes, runs, undisturbed, tmp_path):
    output = tmp_path / "run"

    def start(name: str, *given: str):
        folder = tmp_path / name
        folder.mkdir()
        arguments = [*runs.arguments(SETUP, output), *given]
        return STARTERS[launcher](nodes, SETUP, arguments, folder, Plan(str(folder), str(output)))

    first = start("first")
    try:
        first.wait(300, lambda: steps(output) < 2 or (output / "STOP").touch())
        assert "stopped as asked (file" in first.text(), first.text()
        assert set(first.statuses.values()) <= {DONE, 1, STOPPED}
        assert 2 <= steps(output) < len(undisturbed)
    finally:
        first.end()
    second = start("second", "--resume=auto")
    try:
        assert set(second.wait(300).values()) == {DONE}, second.text()
    finally:
        second.end()
    for node in nodes.names:
        assert node in second.text()  # the table of ranks has both
    assert comparable(output) == undisturbed


def steps(output: Path) -> int:
    return len(read_rows(output / "metrics.jsonl", "train"))

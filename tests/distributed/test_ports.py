import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from project import ROOT

from spe_dist.distributed import ports
from spe_dist.errors import LaunchError


def test_a_free_port_is_below_the_ephemeral_range_and_can_be_bound():
    port = ports.free_port()
    assert ports.LOWEST_PORT <= port < ports.ephemeral_low()
    with socket.create_server(("", port)):
        pass


def test_a_taken_port_is_not_given():
    with socket.create_server(("127.0.0.1", ports.free_port())) as server:
        taken = server.getsockname()[1]
        with pytest.raises(LaunchError, match=f"no free TCP port from {taken} to {taken}"):
            ports.free_port(taken, taken + 1)


def test_a_claimed_port_is_given_to_nobody_else_but_torchs_store_may_listen_on_it():
    distributed = pytest.importorskip("torch.distributed")
    with ports.claim_port() as claimed:
        port = claimed.getsockname()[1]
        with pytest.raises(LaunchError):
            ports.claim_port(port, port + 1)
        store = distributed.TCPStore("127.0.0.1", port, 1, True, timeout=timedelta(seconds=60))
        store.set("key", "value")
        assert store.get("key") == b"value"
        with pytest.raises(LaunchError):
            ports.claim_port(port, port + 1)


def test_the_port_command_prints_a_port_without_importing_torch():
    code = (
        "import sys; from spe_dist.distributed import ports; "
        "assert ports.main([]) == 0; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ports.LOWEST_PORT <= int(done.stdout) < ports.ephemeral_low()


def test_the_held_port_is_released_when_standard_input_ends():
    command = [sys.executable, "-m", "spe_dist.distributed.ports", "--hold"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout is not None and holder.stdin is not None
    port = int(holder.stdout.readline())
    with pytest.raises(LaunchError):
        ports.free_port(port, port + 1)
    holder.stdin.close()
    assert holder.wait(timeout=60) == 0
    holder.stdout.close()
    assert ports.free_port(port, port + 1) == port

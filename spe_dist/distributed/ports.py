"""TCP ports for the meeting point of ranks: free ones below the range from which outgoing connections take theirs.

Imports no torch, so that a job script gets one quickly: `python -m spe_dist.distributed.ports`.
"""

from __future__ import annotations

import argparse
import errno
import random
import socket
import sys
from pathlib import Path

from spe_dist.errors import LaunchError

LOWEST_PORT = 20_000
EPHEMERAL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL_PORT = 32_768


def ephemeral_low() -> int:
    """The lowest port that the system hands out by itself (outgoing connections, port 0)."""
    try:
        return int(EPHEMERAL_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return DEFAULT_EPHEMERAL_PORT


def claim_port(low: int = LOWEST_PORT, high: int | None = None) -> socket.socket:
    """A socket bound to a port in low..high-1 that nobody has, on all addresses of this machine.

    While the socket lives, no other claim gets this port, yet a server that sets SO_REUSEADDR (torch's store does) may
    listen on it: on Linux two bound sockets with that flag share a port as long as only one listens.
    `high` defaults to the start of the ephemeral range, from which outgoing connections take ports at any time.
    """
    if high is None:
        high = ephemeral_low()
    if high <= low:
        low, high = 1_024, max(high, 1_025)
    ports = list(range(low, high))
    random.SystemRandom().shuffle(ports)
    for port in ports:
        claimed = _bind(port)
        if claimed is not None:
            claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after the bind, which has to be exclusive
            return claimed
    raise LaunchError(f"no free TCP port from {low} to {high - 1} on {socket.gethostname()}; set MASTER_PORT yourself")


def _bind(port: int) -> socket.socket | None:
    """A socket bound to `port` over IPv4 and, where there is one, IPv6; None where the port is taken."""
    if socket.has_dualstack_ipv6():
        both = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            both.bind(("::", port))
            return both
        except OSError as error:
            both.close()
            if error.errno != errno.EADDRNOTAVAIL:  # IPv6 compiled in but switched off: try IPv4
                return None
    only_v4 = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        only_v4.bind(("", port))
        return only_v4
    except OSError:
        only_v4.close()
        return None


def free_port(low: int = LOWEST_PORT, high: int | None = None) -> int:
    """A port in low..high-1 that was free just now; `high` defaults to the start of the ephemeral range."""
    with claim_port(low, high) as claimed:
        return int(claimed.getsockname()[1])


def main(arguments: list[str] | None = None) -> int:
    """Prints a free port; with --hold it stays claimed until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m spe_dist.distributed.ports", description=main.__doc__)
    parser.add_argument("--low", type=int, default=LOWEST_PORT, help="lowest port")
    parser.add_argument("--high", type=int, default=None, help="one above the highest; default: ephemeral range")
    parser.add_argument("--hold", action="store_true", help="keep the port claimed until standard input ends")
    options = parser.parse_args(arguments)
    try:
        with claim_port(options.low, options.high) as claimed:
            print(claimed.getsockname()[1], flush=True)
            if options.hold:
                sys.stdin.read()
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

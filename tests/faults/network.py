"""Two nodes on one machine: network namespaces with a name, an address and an SSH server each, joined by one cable.

Root on Linux with iproute2 and util-linux; SSH and pdsh are wanted by `deepspeed --hostfile` alone. Both nodes see the
same files, as nodes with a shared file system do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ETC = Path("/etc/netns")  # what `ip netns exec` puts over /etc
NETWORK = "10.231.91"


class Unavailable(Exception):
    """This machine cannot have such nodes; the message says why."""


class Nodes:
    """Nodes node1 and node2, made by `start` and removed by `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = f"spe{os.getpid()}"
        self.names = ("node1", "node2")
        self.servers: list[subprocess.Popen] = []

    def start(self, ssh: bool = False) -> None:
        """Raises Unavailable."""
        check_available(ssh)
        for number, name in enumerate(self.names, start=1):
            self._make_node(number, name)
        # The cable is made inside the first namespace and its other end moved: nothing shows outside.
        first, second = (self._namespace(name) for name in self.names)
        _run("ip", "-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
        for number, name in enumerate(self.names, start=1):
            _run("ip", "-n", self._namespace(name), "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        self.heal()
        if ssh:
            self._start_ssh()

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """The command that runs `words` on a node."""
        inside = f'hostname {name} && exec "$@"'
        return ["ip", "netns", "exec", self._namespace(name), "unshare", "--uts", "sh", "-c", inside, "sh", *words]

    def cut(self) -> None:
        """Unplug the cable: packets are lost, no connection is told."""
        for name in self.names:
            _run("ip", "-n", self._namespace(name), "link", "set", "eth0", "down")

    def heal(self) -> None:
        for name in self.names:
            _run("ip", "-n", self._namespace(name), "link", "set", "eth0", "up")

    def server_pids(self) -> set[int]:
        """Processes that stay while the nodes do."""
        found = {server.pid for server in self.servers}
        for server in self.servers:
            found |= {process.pid for process in psutil.Process(server.pid).children(recursive=True)}
        return found

    def stop(self) -> None:
        """End everything that runs on the nodes, and remove them."""
        for server in self.servers:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [*psutil.Process(server.pid).children(recursive=True), server]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
            server.wait()
        self.servers.clear()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self._namespace(name)], capture_output=True)
            shutil.rmtree(ETC / self._namespace(name), ignore_errors=True)

    def _namespace(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def _make_node(self, number: int, name: str) -> None:
        namespace = self._namespace(name)
        _run("ip", "netns", "add", namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        etc = ETC / namespace
        etc.mkdir(parents=True, exist_ok=True)
        lines = [f"{NETWORK}.{i} {other}" for i, other in enumerate(self.names, start=1)]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def _start_ssh(self) -> None:
        """A server and a client's settings for each node, with keys of their own; /etc/ssh itself stays as it is."""
        keys = self.folder / "ssh"
        keys.mkdir(parents=True)
        for key in ("host", "user"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / key))
        shutil.copy(keys / "user.pub", keys / "authorized_keys")
        (keys / "sshd_config").write_text(
            f"HostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in self.names:
            ssh = ETC / self._namespace(name) / "ssh"
            ssh.mkdir()
            (ssh / "ssh_config").write_text(
                f"Host *\nIdentityFile {keys}/user\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
                "LogLevel ERROR\nConnectTimeout 5\nServerAliveInterval 2\nServerAliveCountMax 3\n"
            )
            log = (self.folder / f"sshd.{name}.log").open("w")
            command = self.command(name, [shutil.which("sshd") or "sshd", "-D", "-e", "-f", str(keys / "sshd_config")])
            self.servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            log.close()
        for other in self.names:
            self._wait_for_ssh(other)

    def _wait_for_ssh(self, name: str) -> None:
        for _ in range(50):
            asked = subprocess.run(
                self.command(self.names[0], ["ssh", name, "hostname"]), capture_output=True, text=True
            )
            if asked.stdout.strip() == name:
                return
            time.sleep(0.1)
        raise Unavailable(f"no SSH to {name}: {asked.stderr.strip()}")


WAIT_FOR_LOCK = ("-o", "DPkg::Lock::Timeout=300")  # Slurm may be installed meanwhile
PACKAGES = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "pdsh": "pdsh",
}


def check_available(ssh: bool) -> None:
    """Raises Unavailable where namespaces, or SSH and pdsh, are not there and cannot be had from apt-get."""
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    if "/usr/sbin" not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += ":/usr/sbin:/sbin"
    wanted = [name for name in PACKAGES if ssh or name in ("ip", "unshare")]
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing:
        _install([PACKAGES[name] for name in missing])
    if still := [name for name in missing if shutil.which(name) is None]:
        raise Unavailable(f"not installed: {', '.join(PACKAGES[name] for name in still)}, and apt-get does not give it")
    probe = f"spe{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    if made.returncode:
        raise Unavailable(f"no network namespace: {made.stderr.strip()}")


def _install(packages: Sequence[str]) -> None:
    """Ask apt-get, whatever it says; daemons of the packages are not started."""
    if shutil.which("apt-get") is None:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *WAIT_FOR_LOCK, *packages]):
        subprocess.run(["apt-get", *words], env=environment, capture_output=True)
    if made:
        policy.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")

"""Notices at once that the process of a rank has ended, whatever the other ranks are waiting for.

Each rank keeps a connection to rank 0. The kernel closes it when the process ends, however that happens, and keeps it
open for one that is only slow, stopped or busy importing; keepalive packets tell of a machine that has gone. Rank 0
passes on which rank it was. A rank that leaves as it should says so first.

A rank that learns of a death has some seconds to end by itself, with an error of its own; it may also wait in a
collective that only a timeout would end, so the process is ended then.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from spe_dist.distributed.launch import LaunchEnvironment

GRACE_S = 10.0
CONNECT_S = 20.0
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}  # a machine that has gone: 45 s
PORT_KEY = "spe/watch_port"
GOODBYE = "goodbye"


class Watch:
    """This rank's end of the connections. Made by all ranks; rank 0's is made first or at the same time."""

    def __init__(self, environment: LaunchEnvironment, store: Any, end: Callable[[str], None] | None = None) -> None:
        """`end`: called with what has happened, in a thread of its own; none: this process ends with status 1."""
        self.environment = environment
        self.end = end or self._end_process
        self._leaving = threading.Event()
        self._sockets: list[socket.socket] = []
        self._peers: dict[socket.socket, Peer] = {}
        if environment.ranks > 1:
            self._open(store)
            _watches.add(self)

    def close(self) -> None:
        """Say goodbye: what ends from now on is no death."""
        self._leaving.set()
        for connection in self._sockets[:]:
            with contextlib.suppress(OSError):
                connection.sendall(_message(GOODBYE))
            connection.close()
        self._sockets.clear()

    def look_away(self) -> None:
        """Do nothing any more where another rank ends; the connections stay."""
        self._leaving.set()

    def forget(self) -> None:
        """In a forked process: its copies of the connections would keep them open when the rank has died."""
        self._leaving.set()
        for connection in self._sockets:
            connection.close()

    def _open(self, store: Any) -> None:
        if self.environment.rank == 0:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            server = socket.create_server(("", 0), family=family, backlog=self.environment.ranks, dualstack_ipv6=both)
            self._sockets.append(server)
            store.set(PORT_KEY, str(server.getsockname()[1]))
            self._start(self._serve, server)
            return
        port = int(store.get(PORT_KEY))
        try:
            connection = socket.create_connection((self.environment.master_addr, port), timeout=CONNECT_S)
        except OSError as error:
            print(f"warning: deaths of other ranks are noticed by timeouts alone ({error})", file=sys.stderr)
            return
        connection.settimeout(None)
        _keep_alive(connection)
        place = {"rank": self.environment.rank, "node": self.environment.node, "process": os.getpid()}
        connection.sendall(_message(json.dumps(place)))
        self._sockets.append(connection)
        self._start(self._listen, connection)

    def _start(self, target: Callable[[socket.socket], None], connection: socket.socket) -> None:
        threading.Thread(target=target, args=(connection,), daemon=True, name="watch").start()

    def _serve(self, server: socket.socket) -> None:
        """Rank 0: read what the others say until one of them has gone."""
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError, ValueError):
            selector.register(server, selectors.EVENT_READ)
            while not self._leaving.is_set():
                for key, _ in selector.select(timeout=1.0):
                    if key.fileobj is server:
                        connection, _ = server.accept()
                        _keep_alive(connection)
                        self._sockets.append(connection)
                        self._peers[connection] = Peer()
                        selector.register(connection, selectors.EVENT_READ)
                        continue
                    connection = key.fileobj  # type: ignore[assignment]
                    peer = self._peers[connection]
                    if peer.read(connection):
                        continue
                    selector.unregister(connection)
                    if peer.place and not peer.said_goodbye:
                        self._lost(str(peer))

    def _lost(self, who: str) -> None:
        text = f"{who} has ended"
        for connection, peer in list(self._peers.items()):
            with contextlib.suppress(OSError):
                if not peer.said_goodbye:
                    connection.sendall(_message(text))
        self._tell(text)

    def _listen(self, connection: socket.socket) -> None:
        """Other ranks: wait for what rank 0 says, or for its end."""
        said = Peer()
        with contextlib.suppress(OSError):
            while said.read(connection) and not said.lines:
                pass
        if self._leaving.is_set() or said.said_goodbye:
            return
        self._tell(said.lines[0] if said.lines else "rank 0 has ended")

    def _tell(self, text: str) -> None:
        if not self._leaving.is_set():
            self.end(text)

    def _end_process(self, text: str) -> None:
        if self._leaving.wait(GRACE_S):
            return
        sys.stdout.flush()
        who = f"rank {self.environment.rank}: " if self.environment.rank else ""
        print(
            f"{who}error: {text}, as its own last lines may tell, and the others cannot go on without it. Checkpoints "
            "are kept; continue with --resume auto",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # the main thread may wait in a collective that nothing else ends


class Peer:
    """What the other side of a connection has said."""

    def __init__(self) -> None:
        self.place: dict[str, Any] = {}
        self.lines: list[str] = []
        self.said_goodbye = False
        self._text = b""

    def read(self, connection: socket.socket) -> bool:
        """Take in what has come; False where the other side has gone."""
        try:
            data = connection.recv(4_096)
        except OSError:
            return False
        self._text += data
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))
        return bool(data)

    def _take(self, line: str) -> None:
        if line == GOODBYE:
            self.said_goodbye = True
        elif line.startswith("{"):
            with contextlib.suppress(ValueError):
                self.place = json.loads(line)
        else:
            self.lines.append(line)

    def __str__(self) -> str:
        return f"rank {self.place['rank']} (process {self.place['process']} on {self.place['node']})"


def _message(text: str) -> bytes:
    return text.encode() + b"\n"


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


def stop_watching() -> None:
    """This process leaves for a reason of its own: it looks for no deaths any more, and says no goodbye."""
    for watch in list(_watches):
        watch.look_away()


def _forget_in_child() -> None:
    for watch in list(_watches):
        watch.forget()


os.register_at_fork(after_in_child=_forget_in_child)

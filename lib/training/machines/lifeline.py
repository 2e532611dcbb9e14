"""A connection of every process to rank 0, by which the end of one reaches all others, with its reason.

A collective does not tell: gloo sees a closed connection and no reason, NCCL waits for its time-out. Here the
kernel tells: a process that is killed has its connection closed, a machine that is gone no longer answers
the kernel's own probes. Neither needs Python to run, so a process that computes for minutes without letting
go of the interpreter is not taken for a dead one.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from lib.training.machines.place import Place

SILENT_SECONDS = 20
"""After which a machine that does not answer is taken for gone."""
FOLLOWING_SECONDS = 2.0
"""How long a reason that only follows from another one waits for that one."""
GREETING_SECONDS = 10.0
LONGEST_LINE = 65_536
LONGEST_TEXT = 8_000


@dataclass(frozen=True)
class Reason:
    """Why a process ended. `follows`: because another did. `code` is what the command ends with."""

    rank: int
    host: str
    text: str
    code: int = 1
    follows: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} {self.text}"


@dataclass
class Peer:
    """The other end of a connection."""

    connection: socket.socket
    place: Place | None = None
    """None until it has said who it is."""
    unread: bytes = b""
    well: bool = False
    """It has said that it ends because all is done."""


class Lifeline(threading.Thread):
    """Of one process: to all others in rank 0, to rank 0 in the others. `ended` is called once, in this
    thread, with the first reason that comes from another process."""

    def __init__(self, place: Place, ended: Callable[[Reason], None]) -> None:
        super().__init__(name="lifeline", daemon=True)
        self.place, self.ended = place, ended
        self.reason: Reason | None = None
        self.known = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._peers: list[Peer] = []
        self._listeners: list[socket.socket] = []
        self._token = ""
        self.port = 0
        """At which it listens; 0 where it does not."""
        self._lock = threading.Lock()
        self._waiting: tuple[float, Reason] | None = None
        self._over = False
        # What forks, a worker that tokenises say, must not hold the connection open when this one dies.
        os.register_at_fork(after_in_child=self._close)

    # ---- What the process says

    def fail(self, reason: Reason) -> None:
        """This process ends because of that."""
        with self._lock:
            self._over = True
            self._tell({"failed": _short(reason)}, but=reason.rank)

    def end_well(self) -> None:
        """This process ends because all is done."""
        with self._lock:
            self._over = True
            self._tell({"well": True})

    # ---- Connecting

    def listen(self, address: str, token: str) -> None:
        """In rank 0, at a `port` that the system chooses. Raises OSError where `address` is not its own."""
        listener = socket.create_server((address, 0), family=_family(address), backlog=self.place.processes)
        self._token = token
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._listeners.append(listener)
        self.port = int(listener.getsockname()[1])

    def connect(self, address: str, port: int, token: str, host: str) -> None:
        """In the others. Raises OSError when rank 0 is not reached."""
        connection = socket.create_connection((address, port), timeout=GREETING_SECONDS)
        connection.settimeout(None)
        peer = Peer(connection, Place(0, self.place.processes, 0, host))
        self._add(peer)
        _send(peer, {"token": token, "rank": self.place.rank, "host": self.place.host})

    def _add(self, peer: Peer) -> None:
        _probe_by_kernel(peer.connection)
        self._peers.append(peer)
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    # ---- Listening

    def run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.2):
                if key.data is None:
                    connection, _ = self._listeners[0].accept()
                    self._add(Peer(connection))
                else:
                    self._read(key.data)
            if self._waiting and time.monotonic() > self._waiting[0]:
                self._spread(self._waiting[1])

    def _read(self, peer: Peer) -> None:
        received, error = b"", ""
        try:
            received = peer.connection.recv(LONGEST_LINE)
        except OSError as lost:
            error = lost.strerror or str(lost)
        *lines, peer.unread = (peer.unread + received).split(b"\n")
        for line in lines:
            self._hear(peer, line)
        if not received:
            self._lost(peer, error)
        elif len(peer.unread) > LONGEST_LINE:
            self._drop(peer)

    def _hear(self, peer: Peer, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
            if peer.place is None:
                if not hmac.compare_digest(str(said["token"]), self._token):
                    return self._drop(peer)
                peer.place = Place(int(said["rank"]), self.place.processes, 0, str(said["host"]))
            elif "failed" in said:
                self._note(Reason(**said["failed"]))
            else:
                peer.well = bool(said["well"])
        except (ValueError, KeyError, TypeError):
            self._drop(peer)

    def _lost(self, peer: Peer, error: str) -> None:
        self._drop(peer)
        if peer.place is None or peer.well:
            return
        how = f"no longer answers ({error}): its machine or the network is down" if error else GONE
        self._note(Reason(peer.place.rank, peer.place.host, how))

    def _note(self, reason: Reason) -> None:
        if self.reason is None and not reason.follows:
            self._spread(reason)
        elif self._waiting is None:
            self._waiting = (time.monotonic() + FOLLOWING_SECONDS, reason)

    def _spread(self, reason: Reason) -> None:
        self._waiting = None
        with self._lock:
            if self._over or self.reason is not None:
                return
            self.reason = reason
            if self.place.rank == 0:
                self._tell({"failed": _short(reason)}, but=reason.rank)
        self.known.set()
        self.ended(reason)

    def _tell(self, message: dict[str, Any], but: int = -1) -> None:
        for peer in self._peers:
            if peer.place is not None and peer.place.rank != but:
                with suppress(OSError):
                    _send(peer, message)

    def _drop(self, peer: Peer) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(peer.connection)
        self._peers = [other for other in self._peers if other is not peer]
        peer.connection.close()

    def _close(self) -> None:
        """In a forked process, where no thread of this one runs."""
        for connection in (*(peer.connection for peer in self._peers), *self._listeners):
            connection.close()


GONE = (
    "ended without a word: it was killed (by the system when memory was short: see `dmesg` there) "
    "or crashed in native code"
)


def new_token() -> str:
    """Who knows it belongs to the run."""
    return secrets.token_hex(16)


def bindable(address: str) -> str:
    """Where to listen for other machines. Some systems have their own name in /etc/hosts as 127.0.1.1, where
    nobody else reaches them: then at all addresses, as torch's store does."""
    found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0][4][0]
    return "" if ip_address(str(found).partition("%")[0]).is_loopback else address


def _family(address: str) -> int:
    return socket.getaddrinfo(address or "127.0.0.1", 0, type=socket.SOCK_STREAM)[0][0]


def _send(peer: Peer, message: dict[str, Any]) -> None:
    peer.connection.sendall(json.dumps(message).encode() + b"\n")


def _short(reason: Reason) -> dict[str, Any]:
    content = asdict(reason)
    return {**content, "text": content["text"][-LONGEST_TEXT:]}


def _probe_by_kernel(connection: socket.socket) -> None:
    """Lost within SILENT_SECONDS when the other machine is gone, idle or with something to send."""
    third = SILENT_SECONDS // 4
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, third)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, third)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)

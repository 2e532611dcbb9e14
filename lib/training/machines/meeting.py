"""Where the processes of a run meet before they compute together: torch's key-value store.

It is the one that torch's own process group uses: torchrun's agent serves it, or rank 0. Small things are
said in it, in JSON. Nobody waits with a time-out of his own: a process that has ended is reported by its
lifeline.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from lib.failures.explain import explain
from lib.settings.errors import Problem, RunError
from lib.training.durations import readable_duration
from lib.training.machines.place import Place

SHORTEST_PAUSE, PAUSE = 0.001, 0.05
"""Seconds between two looks: what is said comes soon or late."""
LONGEST_ATTEMPT = 5.0
JOIN = "LORA_CURRICULUM_JOIN_SECONDS"
JOIN_SECONDS = 600.0
"""How long the first process waits for the last one to be started."""


class Meeting:
    """What the processes say to each other. All make the same calls in the same order."""

    def __init__(self, store: Any, place: Place) -> None:
        """`store` is a torch.distributed.Store (its stubs know neither bytes nor all its methods)."""
        self.store, self.place = store, place
        self._calls: Counter[str] = Counter()
        self.look_up: Callable[[], None] = lambda: None
        """Called while it waits; raises where waiting has no sense any more."""

    def all(self, about: str, value: Any) -> list[Any]:
        """The values of all processes, in the order of ranks."""
        call = self.call(about)
        self._say(call, value)
        return [self._hear(call, rank) for rank in range(self.place.processes)]

    def first(self, about: str, value: Any) -> Any:
        """That of rank 0."""
        call = self.call(about)
        if self.place.rank == 0:
            self._say(call, value)
        return self._hear(call, 0)

    def wait_for(self, key: str) -> None:
        pause = SHORTEST_PAUSE
        while not self.store.check([key]):
            self.look_up()
            time.sleep(pause)
            pause = min(2 * pause, PAUSE)

    def call(self, about: str) -> str:
        """A name that nobody has used: the same for all processes, who count alike."""
        self._calls[about] += 1
        return f"{about}/{self._calls[about]}"

    def _say(self, call: str, value: Any) -> None:
        self.store.set(f"{call}/{self.place.rank}", json.dumps(value))

    def _hear(self, call: str, rank: int) -> Any:
        self.wait_for(f"{call}/{rank}")
        return json.loads(self.store.get(f"{call}/{rank}"))


def open_meeting(place: Place, environ: Mapping[str, str] = os.environ) -> Meeting:
    """The meeting with everybody there. Raises RunError with who is missing when that takes too long."""
    seconds = float(environ.get(JOIN, JOIN_SECONDS))
    address, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    try:
        store = _store(place, address, port, seconds, environ)
        missing = _still_missing(store, place, seconds)
    except (RuntimeError, TimeoutError) as error:  # torch's own for all that goes wrong with a store
        raise RunError(_not_opened(place, f"{address}:{port}", error, seconds)) from error
    if missing:
        here = sorted(set(range(place.processes)) - missing)
        hosts = [f"{rank} on {store.get(f'here/{rank}').decode()}" for rank in here]
        raise RunError(_absent(f"{address}:{port}", sorted(missing), hosts, seconds))
    return Meeting(store, place)


def _still_missing(store: Any, place: Place, seconds: float) -> set[int]:
    """Ranks that are not there when so much time has passed; empty as soon as all are."""
    until = time.monotonic() + seconds
    store.set(f"here/{place.rank}", place.host)
    missing = set(range(place.processes))
    while True:
        missing = {rank for rank in missing if not store.check([f"here/{rank}"])}
        if not missing or time.monotonic() > until:
            return missing
        time.sleep(PAUSE)


def _store(place: Place, address: str, port: int, seconds: float, environ: Mapping[str, str]) -> Any:
    """A client of the agent's store; without an agent rank 0 serves it, for torch's process group too."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    by_agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if place.rank:
        _await_server(address, port, seconds)
    store = TCPStore(
        address,
        port,
        is_master=place.rank == 0 and not by_agent,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
        multi_tenant=not by_agent,
    )
    return PrefixStore(f"curriculum-{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _await_server(address: str, port: int, seconds: float) -> None:
    """Torch's client tries as well, with a page of C++ frames for each attempt. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((address, port), timeout=LONGEST_ATTEMPT).close()
        except OSError as error:
            if time.monotonic() > until:
                raise TimeoutError(str(error)) from error
        time.sleep(1.0)


def _absent(where: str, missing: Sequence[int], here: Sequence[str], seconds: float) -> Problem:
    return Problem(
        where=where,
        key="processes of this run",
        value=f"rank {', '.join(map(str, missing))} did not come within {readable_duration(seconds)}; "
        f"there are: rank {', rank '.join(here)}",
        expected="all processes of all machines, started at about the same time",
        remedy="look at what the other machine says; start all with the same address, port and number of "
        f"machines; {JOIN} is how long is waited",
    )


def _not_opened(place: Place, where: str, error: Exception, seconds: float) -> Problem:
    known = explain(error)
    if known and not known.failure.follows:
        return Problem(where, place.name, known.failure.cause, "a free port", known.failure.remedy)
    return Problem(
        where=where,
        key=place.name,
        value=f"rank 0 was not reached within {readable_duration(seconds)} ({error})",
        expected="the first machine's address, with its process running",
        remedy="start the first machine; check MASTER_ADDR, MASTER_PORT and firewalls; "
        f"{JOIN} is how long is waited",
    )

"""Processes of a run as threads of this one, with a store in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lib.training.machines.meeting import Meeting
from lib.training.machines.place import Place

T = TypeVar("T")


class MemoryStore:
    """What Meeting and Copies use of torch's store. `largest` is the longest value that there was, `most` how
    many there were at a time."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.largest = 0
        self.most_bytes = 0

    def set(self, key: str, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        with self._lock:
            self._values[key] = content
            self.largest = max(self.largest, len(content))
            self.most_bytes = max(self.most_bytes, sum(map(len, self._values.values())))

    def get(self, key: str) -> bytes:
        return self._values[key]

    def check(self, keys: Sequence[str]) -> bool:
        return all(key in self._values for key in keys)

    def add(self, key: str, amount: int) -> int:
        with self._lock:
            number = int(self._values.get(key, b"0")) + amount
            self._values[key] = str(number).encode()
            return number

    def delete_key(self, key: str) -> bool:
        with self._lock:
            return self._values.pop(key, None) is not None


def places(*hosts: str) -> list[Place]:
    """Of ranks on these hosts."""
    return [Place(rank, len(hosts), hosts[:rank].count(host), host) for rank, host in enumerate(hosts)]


def in_each(of: Sequence[Place], work: Callable[[Meeting], T], store: Any = None) -> list[T]:
    """What `work` comes to in every process."""
    store = store or MemoryStore()
    with ThreadPoolExecutor(len(of)) as pool:
        running = [pool.submit(work, Meeting(store, place)) for place in of]
        return [each.result(timeout=120) for each in running]

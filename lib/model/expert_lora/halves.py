"""Work in two halves that a CPU does side by side.

The products of one expert are too small for two threads to share: a thread each, with half of the experts,
keeps both busy. There are two halves whatever the number of threads, so that sums come out the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from lib.model.threads import threads

T = TypeVar("T")
R = TypeVar("R")


def in_halves(work: Callable[[int, Sequence[T]], R], items: Sequence[T]) -> list[R]:
    """`work(number, half)` of each half of `items`; both at once where torch may use more than one thread.
    What is in one half must not touch what is in the other."""
    middle = -(-len(items) // 2)
    halves = [half for half in (items[:middle], items[middle:]) if half]
    available = torch.get_num_threads()
    if len(halves) == 1 or available == 1:
        return [work(number, half) for number, half in enumerate(halves)]

    def second() -> R:
        torch.set_num_threads(available // 2)  # each thread has its own count
        with torch.no_grad():
            return work(1, halves[1])

    with threads(available // 2):
        later = _second_thread(os.getpid()).submit(second)
        try:
            first = work(0, halves[0])
        finally:
            later.exception()  # it writes to what the caller holds: nobody goes on before it is done
    return [first, later.result()]


@cache
def _second_thread(process: int) -> ThreadPoolExecutor:
    """One that stays, for each process: threads do not survive a fork."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"experts-{process}")

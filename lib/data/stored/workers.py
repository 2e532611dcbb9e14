"""Tasks shared out among processes, with a progress bar on a terminal."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from lib.data.garbage import collect_seldom
from lib.heartbeat import beat

T = TypeVar("T")
_WAITING_TASKS = 2
"""Per process: enough that none waits for work, few enough that their rows take no room."""


class Task(NamedTuple):
    """A function that a new process can import, what it takes, and how many rows that is."""

    run: Callable[..., None]
    arguments: tuple[Any, ...]
    rows: int


def run_tasks(tasks: Iterable[Task], *, processes: int, rows: int | None, doing: str) -> None:
    """Every task once, in any order. Raises what a task raises. One process, or one task, is this process
    itself."""
    with _progress(doing, rows) as advance:
        waiting = iter(tasks)
        first = list(islice(waiting, 2))
        if processes == 1 or len(first) < 2:
            for task in chain(first, waiting):
                task.run(*task.arguments)
                beat()
                advance(task.rows)
            return
        with kept_workers():
            _share_out(_KEPT[-1].of(processes), chain(first, waiting), processes, advance)


@contextmanager
def kept_workers() -> Iterator[None]:
    """Processes that are started within the block serve all of its tasks: starting them takes a second."""
    if _KEPT:
        yield
        return
    _KEPT.append(_Workers())
    try:
        yield
    except BaseException:
        _KEPT.pop().end(cancel=True)
        raise
    _KEPT.pop().end()


class _Workers:
    """None until the first task."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def of(self, processes: int) -> ProcessPoolExecutor:
        if self._pool is None:
            # Not forked: this process may hold threads and locks of torch, which a fork would copy half.
            self._pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)
        return self._pool

    def end(self, *, cancel: bool = False) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=cancel)


_KEPT: list[_Workers] = []
"""At most one: those of the outermost block."""


class Parcel(Generic[T]):
    """Something large that goes to another process once, by way of a file, not with every task."""

    def __init__(self, path: Path, value: T) -> None:
        """`path` is written when the first task is sent."""
        self._path, self._value = path, value

    def open(self) -> T:
        return self._value

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def __reduce__(self) -> tuple[Callable[[Path], Parcel[T]], tuple[Path]]:
        if not self._path.exists():
            self._path.write_bytes(pickle.dumps(self._value))
        return _received, (self._path,)


@lru_cache(maxsize=1)
def _received(path: Path) -> Parcel[Any]:
    return Parcel(path, pickle.loads(path.read_bytes()))


def _share_out(
    pool: ProcessPoolExecutor, tasks: Iterable[Task], processes: int, advance: Callable[[int], None]
) -> None:
    running: dict[Future[None], int] = {}
    try:
        for task in tasks:
            running[pool.submit(task.run, *task.arguments)] = task.rows
            if len(running) >= processes * _WAITING_TASKS:
                _take_done(running, advance)
        while running:
            _take_done(running, advance)
    finally:  # where one failed, none goes on behind the back of whoever handles that
        for future in running:
            future.cancel()
        wait(running)


def _take_done(running: dict[Future[None], int], advance: Callable[[int], None]) -> None:
    """Each is a sign of life."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        rows = running.pop(future)
        future.result()
        beat()
        advance(rows)


def _begin() -> None:
    """In a new process: an interrupt is its parent's to handle, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    collect_seldom()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


@contextmanager
def _progress(doing: str, rows: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else one line at the beginning."""
    if not sys.stderr.isatty():
        print(f"{doing}: {'' if rows is None else f'{rows:,} '}rows", file=sys.stderr, flush=True)
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=rows)
        yield lambda count: bar.advance(task, count)

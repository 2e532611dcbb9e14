"""Tasks shared out among processes, with a progress bar on a terminal."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait as wait_for_end
from typing import Any, NamedTuple

from lib.data.garbage import collect_seldom
from lib.heartbeat import beat

_WAITING_TASKS = 2
"""Per process: enough that none waits for work, few enough that their rows take no room."""


class Task(NamedTuple):
    """A function that a new process can import, what it takes, and how many rows that is."""

    run: Callable[..., None]
    arguments: tuple[Any, ...]
    rows: int


def run_tasks(
    tasks: Iterable[Task],
    *,
    processes: int,
    prepare: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
    rows: int | None,
    doing: str,
) -> None:
    """Every task once, in any order; `prepare(*given)` first in every process. Raises what a task raises.

    One process, or one task, is this process itself.
    """
    with _progress(doing, rows) as advance:
        waiting = iter(tasks)
        first = list(islice(waiting, 2))
        if processes == 1 or len(first) < 2:
            if prepare:
                prepare(*given)
            for task in chain(first, waiting):
                task.run(*task.arguments)
                beat()
                advance(task.rows)
            return
        # Not forked: this process may hold threads and locks of torch, which a fork would copy half.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, context, _begin, (prepare, given))
        try:
            _share_out(pool, chain(first, waiting), processes, advance)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        pool.shutdown()


def _share_out(
    pool: ProcessPoolExecutor, tasks: Iterable[Task], processes: int, advance: Callable[[int], None]
) -> None:
    running: dict[Future[None], int] = {}
    for task in tasks:
        running[pool.submit(task.run, *task.arguments)] = task.rows
        if len(running) >= processes * _WAITING_TASKS:
            _take_done(running, advance)
    while running:
        _take_done(running, advance)


def _take_done(running: dict[Future[None], int], advance: Callable[[int], None]) -> None:
    """Each is a sign of life."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        rows = running.pop(future)
        future.result()
        beat()
        advance(rows)


def _begin(prepare: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    """In a new process: an interrupt is its parent's to handle, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    collect_seldom()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare(*given)


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

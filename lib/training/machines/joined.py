"""How a process comes together with the others of its run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lib.training.machines.alone import ALONE, Alone
from lib.training.machines.meeting import open_meeting
from lib.training.machines.place import Place
from lib.training.machines.together import Together
from lib.training.processes.extension_lock import release_orphaned_locks
from lib.training.processes.launch import is_worker, prepare_environment
from lib.training.processes.worker_words import is_heard
from lib.training.sizing.world import World, processes_here


@contextmanager
def joined(world: World, *, looks_only: bool = False) -> Iterator[Alone]:
    """The other processes of this run while the block lasts, all of them there. What ends one ends all, with
    its reason. Of processes that only look (`--plan`) the first one looks.

    Raises RunError when one does not come.
    """
    if not is_worker() or world.processes == 1 or looks_only:
        if looks_only and is_worker() and Place.of().rank:
            raise SystemExit(0)
        yield ALONE
        return
    place = Place.of()
    _prepare(world, place)
    together = Together(open_meeting(place))
    try:
        with together.heeded():
            yield together
    except BaseException as error:
        together.failed(error)
        raise
    together.done()


def _prepare(world: World, place: Place) -> None:
    """Before torch is loaded, what `run_workers` does for workers of its own."""
    here = processes_here(world.processes)
    # DeepSpeed's launcher has another name for it.
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(here))
    # More threads than cores make every small product wait for a barrier.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // here)))
    prepare_environment(world)
    if place.leads and not is_heard():
        for notice in release_orphaned_locks():
            print(notice, file=sys.stderr, flush=True)

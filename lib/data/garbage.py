"""Python's collector of cyclic garbage, while many rows are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS_BETWEEN_COLLECTIONS = 1_000_000
"""Rows are trees: looking for cycles among them as often as Python does takes a sixth of the time."""


def collect_seldom() -> None:
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """For as long as this lasts. What was made by then is not looked at again: a run keeps its rows."""
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*before)

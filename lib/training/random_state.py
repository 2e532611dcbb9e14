"""The random state of a process, kept out of what must not change it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Whatever the block draws, afterwards Python, numpy and torch (GPUs too) draw as if it had not."""
    import numpy
    import torch

    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)

"""Runs of the real commands, as tests/integration has them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """forked_runs.ForkServer: starts runs of train.py at once."""
    from forked_runs import fork_server

    with fork_server() as started:
        yield started

"""Real data that lies outside of the repository, for the tests that compare with it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder named by SHARED_DATA, or beside the repository; tests skip without it."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; SHARED_DATA names another folder")
    return folder

"""A folder of stages and data sets."""

from pathlib import Path

import pytest
from audited_rows import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)

"""Fixtures of the tests that run the real command."""

from pathlib import Path

import pytest
from tiny_curriculum import Curriculum, make_curriculum, make_model


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Qwen3-MoE, bf16 on disk."""
    return make_model(tmp_path_factory.mktemp("base") / "tiny-moe")


@pytest.fixture
def curriculum(tmp_path: Path, tiny_base: Path) -> Curriculum:
    """A fresh three-stage curriculum of which nothing has run."""
    return make_curriculum(tmp_path, tiny_base)

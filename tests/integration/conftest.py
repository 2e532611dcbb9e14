"""Fixtures of the tests that run the real command on a tiny model."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import start_browser
from tiny_curriculum import Curriculum, make_curriculum, texts
from tiny_model import make_model
from train_command import clean_environment

CREATE_STORE = (
    "import sys; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore; "
    "SqlAlchemyStore('sqlite:///' + sys.argv[1], sys.argv[2])"
)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Qwen3-MoE, bf16 on disk."""
    return make_model(tmp_path_factory.mktemp("base") / "tiny-moe", texts())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Curriculum:
    """A curriculum after `--stage all`. Only to be looked at; `copy_to` gives one that may be changed."""
    curriculum = make_curriculum(tmp_path_factory.mktemp("trained") / "curriculum", tiny_base)
    said = curriculum.train("all")
    (curriculum.folder / "said.txt").write_text(said, encoding="utf-8")
    return curriculum


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database with its tables: making them takes longer than training."""
    folder = tmp_path_factory.mktemp("store")
    command = [sys.executable, "-c", CREATE_STORE, str(folder / "mlflow.db"), str(folder)]
    environ = {**clean_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_curriculum(tiny_base: Path, empty_store: Path) -> Callable[[Path], Curriculum]:
    """Makes fresh curricula, of which nothing has run."""

    def make(folder: Path) -> Curriculum:
        curriculum = make_curriculum(folder, tiny_base)
        (folder / "mlruns").mkdir()
        shutil.copy(empty_store, folder / "mlruns/mlflow.db")
        return curriculum

    return make


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all tests that need it."""
    yield from start_browser(tmp_path_factory.mktemp("profile"))

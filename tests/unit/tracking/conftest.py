"""Real MLflow stores with their tables made."""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Store:
    """A SQLite store, and what is in it."""

    path: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def client(self) -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.uri)

    def runs(self, experiment: str = "llm-training-stage1") -> list[Any]:
        """Newest first."""
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            return []
        return list(self.client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"]))

    def points(self, run_id: str, name: str = "loss") -> list[tuple[int, float]]:
        """(step, value), as often as the store has them."""
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run_id, name))

    def locked(self) -> sqlite3.Connection:
        """A connection that writes and does not end."""
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        return connection


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making the tables takes longer than anything that is put into them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("store")
    SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())
    return folder / "mlflow.db"


@pytest.fixture
def new_store(empty_store: Path, tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return Store(folder / "mlflow.db")

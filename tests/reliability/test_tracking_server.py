"""A real MLflow server that is not there while a stage is trained, and comes back."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from tiny_curriculum import Curriculum, make_curriculum, texts
from tiny_model import make_model
from train_command import clean_environment

START_SECONDS = 180
PASSWORD = "hunter2canary"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """`mlflow server` on loopback."""
    store = f"sqlite:///{folder}/server.db"
    command = [
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    artifacts = ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, *command, *artifacts],
        env={**clean_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()


def wait_for(port: int, process: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("the server did not start")


@pytest.fixture
def curriculum(tmp_path: Path) -> Curriculum:
    return make_curriculum(tmp_path / "c", make_model(tmp_path / "base" / "tiny-moe", texts()))


@pytest.mark.slow
def test_what_a_server_missed_is_sent_when_it_is_back(curriculum: Curriculum, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://me:{PASSWORD}@127.0.0.1:{port}"
    curriculum.set(1, MLFLOW_TRACKING_URI=address)
    result = curriculum.command("--stage", 1)
    assert result.returncode == 0
    assert result.stderr.count("[WARNING] MLflow: ") == 1
    assert curriculum.record(1)["mlflow_run_id"] == ""
    assert list(curriculum.stage_dir(1).glob("tracking-*.jsonl"))

    with server(tmp_path, port):
        assert "up to date" in curriculum.train(1)
        assert not list(curriculum.stage_dir(1).glob("tracking-*.jsonl"))
        assert_whole(curriculum, port)
    for path in curriculum.stage_dir(1).rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in result.stdout + result.stderr


def assert_whole(curriculum: Curriculum, port: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("llm-training-stage1")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = curriculum.record(1)["training"]["history"]
    told = sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss"))
    assert told == [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"stage.json", "settings.json", "ledger.json", "report.html", "samples.json"} <= names

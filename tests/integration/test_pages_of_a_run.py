"""The pages that a real run leaves, in a real browser: its report, and its run in MLflow's own pages."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from browser import DESKTOP, PHONE, charts_are_drawn, needs_browser, open_page, traces_of_charts
from eventually import eventually
from free_port import free_port
from tiny_curriculum import STAGES, Curriculum
from train_command import clean_environment

pytestmark = needs_browser


def severe(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_report_of_a_run_draws_and_filters(
    browser: Any, trained: Curriculum, stage: int, width: int
) -> None:
    open_page(browser, (trained.stage_dir(stage) / "report.html").as_uri(), width=width)
    eventually(lambda: charts_are_drawn(browser))
    charts = traces_of_charts(browser)
    assert {"ledger_sources", "loss", "learning_rate", "scores"} <= charts.keys()
    assert ("retention" in charts) == (stage > 0)
    answers = browser.execute_script("return document.querySelectorAll('.sample').length")
    assert answers == trained.record(stage)["evaluation"]["after"]["metrics"]["gen_samples"]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert severe(browser) == []


@pytest.fixture(scope="module")
def mlflow_pages(trained: Curriculum) -> Iterator[str]:
    """The address of MLflow's own server over the store of the run."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", "sqlite:///mlruns/mlflow.db"]
    environ = {**clean_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with subprocess.Popen(
        [sys.executable, *command, *store],
        cwd=trained.folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        eventually(lambda: answers(f"{address}/health"))
        yield address
        server.terminate()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_mlflow_shows_the_run_with_its_metrics(browser: Any, trained: Curriculum, mlflow_pages: str) -> None:
    import mlflow

    run_id = trained.record(2)["mlflow_run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{trained.folder}/mlruns/mlflow.db")
    experiment = client.get_run(run_id).info.experiment_id
    open_page(browser, f"{mlflow_pages}/#/experiments/{experiment}/runs/{run_id}")
    text = "return document.body.innerText"
    eventually(lambda: "gen_parse_rate" in browser.execute_script(text))
    shown = browser.execute_script(text)
    assert "stage 2" in shown
    assert "eval_loss" in shown
    # The page asks who is logged in; a server without accounts has no answer.
    assert [message for message in severe(browser) if "users/current" not in message] == []

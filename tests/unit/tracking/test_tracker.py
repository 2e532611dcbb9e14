"""A run as MLflow keeps it, in a real SQLite store: what is in it, and what must never be."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eventually import PATIENCE

from lib.lineage.curriculum import SurveyedStage
from lib.settings.stage import KEYS
from lib.tracking import mlflow_tracker
from lib.tracking.contents import env_text
from lib.tracking.protocol import NoTracker
from lib.tracking.tracker import track

CANARY = "hf_canary0123456789"
PASSWORD = "hunter2canary"


def with_store(stage: SurveyedStage, uri: str) -> SurveyedStage:
    """The stage, tracked at `uri`; the text of its settings stays."""
    settings = stage.settings
    return replace(stage, settings=replace(settings, tracking=replace(settings.tracking, uri=uri)))


def runs_of(store: Path, experiment: str) -> list[Any]:
    """Runs, newest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{store}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"]))


def history(store: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(m.step, m.value) for m in MlflowClient(f"sqlite:///{store}").get_metric_history(run_id, name)]


def test_a_run_with_all_that_belongs_in_it_and_no_secret(
    curriculum: Any, new_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib.tracking.callback import TrackingCallback

    monkeypatch.setattr(mlflow_tracker, "ENDED_SECONDS", PATIENCE)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    keys = {"HF_TOKEN": CANARY, "MLFLOW_EXPERIMENT_NAME": "mine", "SFT_LR": "3e-4"}
    address = f"https://me:{PASSWORD}@tracking.example"
    curriculum.stage(1)
    curriculum.train(1)
    curriculum.stage(2, MLFLOW_TRACKING_URI=address, **keys)
    surveyed = curriculum.surveyed(2, environ={**os.environ, "HF_TOKEN": CANARY})
    store = new_store.path
    stage = with_store(surveyed, f"sqlite:///{store}")
    data = curriculum.prepared(stage)
    with track(stage, data, is_main=True) as tracker:
        callback = TrackingCallback(tracker)
        for step, loss in ((1, 2.0), (2, 1.5), (3, 1.0)):
            logs = {"loss": loss, "learning_rate": 1e-4, "note": "no number"}
            callback.on_log(None, SimpleNamespace(global_step=step), None, logs=logs)  # type: ignore[arg-type]
        record = curriculum.record(stage)
        sample = {"row": "a#0", "prompt": "問", "reference": "{}", "answer": "{", "labels": {}, "verdict": {}}
        report = curriculum.root / "report.html"
        report.write_text("<p>report</p>")
        tracker.results(record, [sample], [report])
        run_id = tracker.run_id
    assert run_id

    (run,) = runs_of(store, "mine")
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", "stage 2")
    assert run.data.params["SFT_LR"] == "3e-4"
    assert set(run.data.params) <= set(KEYS) - {"MLFLOW_TRACKING_URI"}
    assert set(run.data.params) >= {"SFT_BASE_MODEL", "SFT_SEED", "SFT_LORA_R"}
    assert history(store, run_id, "loss") == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert history(store, run_id, "gen_parse_rate") == [(5, 0.5)]
    assert "note" not in run.data.metrics

    tags = run.data.tags
    assert tags["curriculum.stage"] == "2"
    assert tags["curriculum"] == "lora"
    assert tags["curriculum.base_key"] == stage.chain.key
    assert tags["curriculum.parent_runs"] == "run"
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "rows.jsonl"
    assert dataset.dataset.digest == data.sources[0].fingerprint[:32]
    assert [tag.value for tag in dataset.tags] == ["training/train"]

    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    names = {path.name for path in artifacts.iterdir()}
    assert names >= {"ledger.json", "settings.json", "stage2.env", "stage.json", "report.html"}
    table = json.loads((artifacts / "samples.json").read_text())
    assert dict(zip(table["columns"], table["data"][0], strict=True))["prompt"] == "問"
    logged = json.loads((artifacts / "ledger.json").read_text())
    assert logged == json.loads(json.dumps(data.ledger_after(record.training["steps"]).to_json()))
    line = logged["sources"][0]
    name = f"mix/{line['id'].lstrip('/')}"
    assert run.data.metrics[f"{name}/requested_rows"] == line["requested"] == 38
    assert run.data.metrics[f"{name}/trained_share"] == 1
    assert json.loads((artifacts / "settings.json").read_text())["values"]["SFT_LR"] == "3e-4"
    assert "SFT_LR='3e-4'" in (artifacts / "stage2.env").read_text()

    written = [path for path in store.parent.rglob("*") if path.is_file()]
    assert len(written) > 4
    written += [path for path in curriculum.folder(2).rglob("*") if path.is_file()]
    assert not list(curriculum.folder(2).glob("tracking-*.jsonl"))
    assert json.loads((curriculum.folder(2) / "tracking.json").read_text())["run_id"] == run_id
    for path in written:
        content = path.read_bytes()
        assert CANARY.encode() not in content, path
        assert PASSWORD.encode() not in content, path
    assert "MLFLOW_TRACKING_URI" not in os.environ

    for error, status in ((KeyboardInterrupt, "KILLED"), (ValueError, "FAILED"), (SystemExit, "FAILED")):
        with pytest.raises(error), track(stage, data, is_main=True):
            raise error
        assert runs_of(store, "mine")[0].info.status == status


def test_a_store_that_cannot_be_had_only_warns(
    curriculum: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    curriculum.stage(1)
    stage = curriculum.surveyed(1)
    data = curriculum.prepared(stage)
    blocker = curriculum.root / "file"
    blocker.touch()
    for uri in (f"sqlite:///{blocker}/mlflow.db", f"http://me:{PASSWORD}@127.0.0.1:9", "nonsense://x"):
        with track(with_store(stage, uri), data, is_main=True) as tracker:
            tracker.metrics({"loss": 1.0}, step=1)
            assert tracker.run_id == ""
            tracker.results(curriculum.record(stage), [], [])
        warning = capsys.readouterr().err
        (kept,) = stage.settings.stage_dir.glob("tracking-*.jsonl")
        assert f"kept in {kept}" in warning
        assert PASSWORD not in kept.read_text()
        shutil.rmtree(stage.settings.stage_dir)
        assert warning.count("[WARNING] MLflow: ") == 1
        assert "Training goes on" in warning
        assert PASSWORD not in warning


def test_other_ranks_track_nothing(curriculum: Any) -> None:
    curriculum.stage(1)
    stage = curriculum.surveyed(1)
    with track(stage, curriculum.prepared(stage), is_main=False) as tracker:
        assert isinstance(tracker, NoTracker)
        assert tracker.run_id == ""
    assert not (curriculum.root / "mlruns").exists()


def test_the_env_text_holds_what_was_set_and_nothing_else(curriculum: Any) -> None:
    path = curriculum.stage(1, HF_TOKEN=CANARY, MLFLOW_TRACKING_URI=f"https://me:{PASSWORD}@host")
    path.write_text(path.read_text() + f"# a comment with {CANARY}\n")
    text = env_text(curriculum.surveyed(1, overrides=["SFT_LR=4e-4"]).settings)
    assert "SFT_LR='4e-4'" in text
    assert "SFT_SEED" not in text
    assert CANARY not in text
    assert PASSWORD not in text
    assert text.startswith("# stage1.env: ")

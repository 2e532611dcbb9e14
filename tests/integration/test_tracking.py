"""What a curriculum leaves in MLflow."""

import json
from typing import Any

import pytest
from tiny_curriculum import STAGES, Curriculum
from train_command import SECRET

EXPERIMENTS = {1: "llm-training-stage1", 2: "weak-formats", 3: "llm-training-stage3"}
METRICS = {"loss", "eval_loss", "learning_rate", "grad_norm", "num_tokens", "gen_parse_rate", "heldout_loss"}


@pytest.fixture(scope="module")
def client(trained: Curriculum) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{trained.folder}/mlruns/mlflow.db")


@pytest.fixture(scope="module")
def runs(client: Any) -> dict[int, Any]:
    """The one run of every stage, by its experiment."""
    found = {}
    for stage, name in EXPERIMENTS.items():
        experiment = client.get_experiment_by_name(name)
        (found[stage],) = client.search_runs([experiment.experiment_id])
    return found


def test_there_is_one_finished_run_a_stage(trained: Curriculum, runs: dict[int, Any]) -> None:
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for stage in STAGES:
        assert runs[stage].info.run_name == f"stage {stage}"
        assert trained.record(stage)["mlflow_run_id"] == runs[stage].info.run_id


def test_tags_link_the_stages(trained: Curriculum, runs: dict[int, Any], tiny_base) -> None:
    for stage, run in runs.items():
        tags = run.data.tags
        assert tags["curriculum"] == "lora"
        assert tags["curriculum.stage"] == str(stage)
        assert tags["curriculum.base_model"] == str(tiny_base)
        assert tags["curriculum.base_key"] == trained.record(stage)["base"]["key"]
        earlier = ",".join(runs[number].info.run_id for number in range(1, stage))
        assert tags["curriculum.parent_runs"] == earlier


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_are_logged_over_the_steps(
    trained: Curriculum, runs: dict[int, Any], client: Any, stage: int
) -> None:
    run, history = runs[stage], trained.record(stage)["training"]["history"]
    assert run.data.metrics.keys() >= METRICS
    for name in ("loss", "eval_loss"):
        logged = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        assert sorted(logged) == [(entry["step"], entry[name]) for entry in history if name in entry]
    scores = client.get_metric_history(run.info.run_id, "heldout_loss")
    # Stage 1 asks for scores before training, too; stage 2 ends after its last evaluation.
    assert sorted(point.step for point in scores) == {1: [0, 2, 4], 2: [2, 4, 5], 3: [2, 4]}[stage]
    kept = trained.record(stage)["evaluation"]["after"]["metrics"]
    assert run.data.metrics["final/heldout_loss"] == kept["heldout_loss"]
    retained = [name for name in run.data.metrics if name.startswith("retention/")]
    assert len(retained) == stage - 1


def test_params_are_the_settings_without_the_address(runs: dict[int, Any]) -> None:
    params = runs[2].data.params
    assert (params["SFT_LR"], params["SFT_LORA_R"], params["SFT_SEED"]) == ("0.003", "4", "3407")
    assert "MLFLOW_TRACKING_URI" not in params
    assert all(key.startswith(("SFT_", "MLFLOW_EXPERIMENT")) for key in params)
    assert SECRET not in json.dumps(params)


def test_data_sets_are_inputs_with_their_fingerprints(trained: Curriculum, runs: dict[int, Any]) -> None:
    sources = {source["id"]: source for source in trained.record(2)["data"]["sources"]}
    inputs = {entry.dataset.name: entry for entry in runs[2].inputs.dataset_inputs}
    assert inputs.keys() == sources.keys() == {"general.jsonl", "toml.jsonl"}
    for name, entry in inputs.items():
        assert sources[name]["fingerprint"].startswith(entry.dataset.digest)
        assert entry.tags[0].value == "training/train"


@pytest.mark.parametrize("stage", STAGES)
def test_artifacts_hold_ledger_settings_env_file_and_record(
    trained: Curriculum, runs: dict[int, Any], client: Any, stage: int, tmp_path
) -> None:
    run_id = runs[stage].info.run_id
    names = {artifact.path for artifact in client.list_artifacts(run_id)}
    evaluations = {path.name for path in trained.stage_dir(stage).glob("gen_metrics_step*.json")}
    assert len(evaluations) >= 2
    assert names == evaluations | {
        "ledger.json", "settings.json", "stage.json", f"stage{stage}.env", "report.html", "samples.json",
    }  # fmt: skip
    table = json.loads(_artifact(client, run_id, "samples.json", tmp_path))
    assert {"prompt", "reference", "answer", "verdict"} <= set(table["columns"])
    assert len(table["data"]) == trained.record(stage)["evaluation"]["after"]["metrics"]["gen_samples"]
    ledger = json.loads(_artifact(client, run_id, "ledger.json", tmp_path))
    assert ledger == trained.record(stage)["data"]["ledger"]
    settings = json.loads(_artifact(client, run_id, "settings.json", tmp_path))
    assert settings["values"] == trained.record(stage)["settings"]
    env_file = _artifact(client, run_id, f"stage{stage}.env", tmp_path)
    assert f"SFT_LR='{settings['values']['SFT_LR']}'" in env_file
    assert "HF_TOKEN" not in env_file


def _artifact(client: Any, run_id: str, name: str, folder: Any) -> str:
    with open(client.download_artifacts(run_id, name, str(folder)), encoding="utf-8") as file:
        return file.read()

"""Ctrl-C while a stage trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_curriculum import Curriculum


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory, new_curriculum: Callable[[Path], Curriculum]
) -> tuple[Curriculum, tuple[int, str, str]]:
    """Stage 1, which would train 5,000 steps, after SIGINT at its fifth or soon after, when its tracking
    run has begun; and how the command ended."""
    curriculum = new_curriculum(tmp_path_factory.mktemp("interrupted") / "curriculum")
    curriculum.set(1, SFT_MAX_STEPS=5000, SFT_SAVE_STEPS=4, SFT_EVAL_STEPS=4)

    def tracked() -> bool:
        return bool(json.loads((curriculum.stage_dir(1) / "tracking.json").read_text())["run_id"])

    return curriculum, curriculum.command.interrupted("--stage", 1, at="step     5/5000", ready=tracked)


def test_it_ends_with_130_and_without_a_traceback(interrupted: Any) -> None:
    curriculum, (code, out, err) = interrupted
    assert code == 130
    said = err.splitlines()[-1]
    assert said.startswith("interrupted: checkpoint saved at step ")
    assert said.endswith(", the same command goes on from there")
    assert "Traceback" not in out + err
    assert "step     5/5000" in out
    assert not (curriculum.stage_dir(1) / "stage.json").exists()
    assert not (curriculum.stage_dir(1) / "running.json").exists()


def test_status_says_where_it_was_interrupted(interrupted: Any) -> None:
    curriculum, _ = interrupted
    first, second, third = curriculum.status()
    steps = [
        int(path.name.removeprefix("checkpoint-")) for path in curriculum.stage_dir(1).glob("checkpoint-*")
    ]
    assert first == f"stage 1  interrupted  at step {max(steps)}"
    assert second.split()[2] == third.split()[2] == "missing"


def test_its_tracking_run_is_killed_not_left_running(interrupted: Any) -> None:
    from mlflow import MlflowClient

    curriculum, _ = interrupted
    client = MlflowClient(f"sqlite:///{curriculum.folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("llm-training-stage1")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"


def test_the_plan_says_where_it_would_go_on(interrupted: Any) -> None:
    curriculum, _ = interrupted
    (plan,) = curriculum.plans(1)
    assert f"stage 1  interrupted  {plan['goes_on_from']}" == curriculum.status()[0]


def test_changed_settings_are_refused_and_begun_anew_on_demand(interrupted: Any, tmp_path: Path) -> None:
    curriculum = interrupted[0].copy_to(tmp_path / "again")
    before = curriculum.status()[0]
    curriculum.set(1, SFT_MAX_STEPS=4)
    refused = curriculum.command("--stage", 1)
    assert refused.returncode == 2
    assert "SFT_MAX_STEPS changed from 5000 to 4" in refused.stderr
    assert "--restart" in refused.stderr
    assert curriculum.status()[0] == before
    curriculum.train(1, "--restart")
    assert curriculum.status()[0].startswith("stage 1  complete")
    assert {path.name for path in curriculum.stage_dir(1).glob("checkpoint-*")} == {"checkpoint-4"}

"""A token whose embedding is not a number, in one row of the data: what the real command does about it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_reproducible import needs_compiler
from tiny_curriculum import Curriculum
from tiny_curriculum import rows as conversations

BROKEN_BYTE, BROKEN_ROW = "Ã", 7
"""As the byte-level tokenizer writes the first byte of é, which no other row has."""
STEPS = 6
SECRETS = {
    name: f"canary{number}9f3b2a7c"
    for number, name in enumerate(
        (
            "HF_TOKEN",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "OPENAI_API_KEY",
            "WANDB_API_KEY",
            "MY_DATABASE_PASSWORD",
        )
    )
}

MakeCurriculum = Callable[[Path], Curriculum]


@pytest.fixture(scope="module")
def broken_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("broken") / "base"
    shutil.copytree(tiny_base, base)
    token = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"][BROKEN_BYTE]
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = math.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return base


def make(folder: Path, base: Path, new_curriculum: MakeCurriculum, rows_at_once: int = 2) -> Curriculum:
    curriculum = new_curriculum(folder)
    data = conversations(12)
    data[BROKEN_ROW]["messages"][0]["content"] += " Idée 日本語."
    curriculum.write_rows("general.jsonl", data)
    none = {"SFT_VAL_RATIO": 0, "SFT_GEN_EVAL_SAMPLES": 0, "SFT_GEN_EVAL_BEFORE": 0, "SFT_LORA_DROPOUT": 0}
    batch = {"SFT_PER_DEVICE_TRAIN_BS": rows_at_once, "SFT_MAX_STEPS": STEPS}
    curriculum.set(1, SFT_BASE_MODEL=base, **none, **batch)
    return curriculum


def runs_of(curriculum: Curriculum) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{curriculum.folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("llm-training-stage1")
    return client, client.search_runs([experiment.experiment_id])


def bad_batches(curriculum: Curriculum) -> list[dict[str, Any]]:
    text = (curriculum.stage_dir(1) / "bad_batches.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def named(entry: dict[str, Any]) -> list[str]:
    return [row["row"] for found in entry["passes"] for row in found["rows"]]


def test_the_run_stops_names_the_rows_and_keeps_its_secrets(
    tmp_path: Path, broken_base: Path, new_curriculum: MakeCurriculum
) -> None:
    curriculum = make(tmp_path / "c", broken_base, new_curriculum)
    result = curriculum.command("--stage", 1, **SECRETS)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    (entry,) = bad_batches(curriculum)
    assert f"step {entry['step']}: the loss is not a number" in result.stderr
    assert f"general.jsonl#{BROKEN_ROW}" in named(entry)
    assert all(row in result.stderr for row in named(entry))
    assert entry["done"] == "stopped"
    assert not (curriculum.stage_dir(1) / "stage.json").exists()
    client, (run,) = runs_of(curriculum)
    assert run.info.status == "FAILED"
    assert "bad_batches.jsonl" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    assert steps == list(range(1, entry["step"]))

    written = [path for path in curriculum.folder.rglob("*") if path.is_file() and "stages" not in path.parts]
    contents = [path.read_bytes() for path in written]
    contents += [result.stdout.encode(), result.stderr.encode()]
    assert len(contents) > 8
    for secret in SECRETS.values():
        assert not any(secret.encode() in content for content in contents)


@pytest.mark.slow
def test_an_evaluation_that_is_no_number_stops_the_run_or_is_named(
    tmp_path: Path, broken_base: Path, new_curriculum: MakeCurriculum
) -> None:
    """The broken row is one of the validation rows, whatever else is in the data."""
    curriculum = make(tmp_path / "c", broken_base, new_curriculum)
    curriculum.set(1, SFT_VAL_RATIO=0.2, SFT_GEN_EVAL_SAMPLES=4, SFT_MAX_STEPS=4)
    result = curriculum.command("--stage", 1)
    assert result.returncode == 1
    assert "evaluation at step 2: the eval_loss is not a number" in result.stderr
    assert f"rows general.jsonl#{BROKEN_ROW} (all in " in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    curriculum.train(1, "--set", "SFT_ON_NAN=skip")
    found = bad_batches(curriculum)
    assert [(entry["step"], entry["done"]) for entry in found] == [(2, "left out"), (4, "left out")]
    assert {row["row"] for entry in found for row in entry["evaluation"]} == {f"general.jsonl#{BROKEN_ROW}"}
    record = curriculum.record(1)
    said = "evaluations without a score, which is never the best: 2, "
    assert any(said in notice for notice in record["notices"])
    assert any("the heldout_loss is not a number" in notice for notice in record["notices"])
    assert said in (curriculum.stage_dir(1) / "report.html").read_text(encoding="utf-8")
    assert (record["training"]["best_step"], record["training"]["best_metric"]) == (None, None)
    for path in curriculum.folder.rglob("*.json*"):
        for line in path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [""]:
            json.loads(line or path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    _, (skipped, stopped) = runs_of(curriculum)
    assert "eval_loss" not in skipped.data.metrics | stopped.data.metrics
    assert skipped.data.metrics["loss"] > 0


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.slow
@needs_compiler
def test_one_process_two_plain_ones_and_two_sharded_ones_leave_out_the_same(
    tmp_path: Path, broken_base: Path, new_curriculum: MakeCurriculum
) -> None:
    made = {
        name: make(tmp_path / name, broken_base, new_curriculum, rows_at_once)
        for name, rows_at_once in (("one", 2), ("plain", 1), ("sharded", 1))
    }
    skip = ("--set", "SFT_ON_NAN=skip")
    said = made["one"].train(1, *skip)
    made["plain"].train(1, "--nproc", 2, "--set", "SFT_ZERO_STAGE=0", *skip)
    made["sharded"].train(1, "--nproc", 2, *skip)
    (entry,) = bad_batches(made["one"])
    assert f"[WARNING] step {entry['step']}: the loss is not a number; left out" in said
    for curriculum in made.values():
        (found,) = bad_batches(curriculum)
        assert (found["step"], set(named(found))) == (entry["step"], set(named(entry)))
        record = curriculum.record(1)
        assert [notice for notice in record["notices"] if "were left out" in notice]
        assert "were left out" in (curriculum.stage_dir(1) / "report.html").read_text(encoding="utf-8")
    assert [found["loss"] for found in bad_batches(made["sharded"])[0]["passes"]].count("nan") == 1
    for other in ("plain", "sharded"):
        assert_same_course(made["one"], made[other])
    client, (run,) = runs_of(made["one"])
    assert run.data.metrics["skipped_steps"] == 1
    assert "bad_batches.jsonl" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def assert_same_course(one: Curriculum, other: Curriculum) -> None:
    """Losses and rates; the adapter up to rounding, as in test_reproducible."""
    courses = [
        [
            (e["step"], e["learning_rate"], e.get("loss"))
            for e in c.record(1)["training"]["history"]
            if "learning_rate" in e
        ]
        for c in (one, other)
    ]
    assert [found[:2] for found in courses[0]] == [found[:2] for found in courses[1]]
    for (_, _, first), (_, _, second) in zip(*courses, strict=True):
        assert (first is None) == (second is None)
        assert first is None or second == pytest.approx(first, abs=2e-4)
    weights = [load_file(c.stage_dir(1) / "adapter_model.safetensors") for c in (one, other)]
    flat = [torch.cat([tensor.float().flatten() for tensor in found.values()]) for found in weights]
    assert torch.isfinite(flat[0]).all()
    assert (flat[0] - flat[1]).norm() < 0.05 * flat[0].norm()


@pytest.mark.slow
@needs_compiler
def test_two_processes_that_stop_both_end(
    tmp_path: Path, broken_base: Path, new_curriculum: MakeCurriculum
) -> None:
    curriculum = make(tmp_path / "c", broken_base, new_curriculum, rows_at_once=1)
    result = curriculum.command("--stage", 1, "--nproc", 2)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.count("the loss is not a number") == 1
    _, (run,) = runs_of(curriculum)
    assert run.info.status == "FAILED"

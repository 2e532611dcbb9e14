"""Evaluation by generation through the real command: while training, after it, and by itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_curriculum import Curriculum

from lib.lineage.record import read_record, write_record

MakeCurriculum = Callable[[Path], Curriculum]
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="DeepSpeed compiles its CPU communication with a C++ compiler, and there is none",
)


def answers(curriculum: Curriculum, stage: int = 1) -> list[tuple[str, str, int]]:
    record = curriculum.record(stage)
    path = curriculum.stage_dir(stage) / f"gen_metrics_step{record['training']['kept_step']}.json"
    return [(s["row"], s["answer"], s["tokens"]) for s in json.loads(path.read_text())["samples"]]


def history(curriculum: Curriculum, name: str) -> list[tuple[int, float]]:
    entries = curriculum.record(1)["training"]["history"]
    return [(entry["step"], entry[name]) for entry in entries if name in entry]


def scores(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "heldout_loss"}


@pytest.fixture(scope="module")
def scored(trained: Curriculum, tmp_path_factory: pytest.TempPathFactory) -> Curriculum:
    """The trained curriculum, to be evaluated again and again."""
    return trained.copy_to(tmp_path_factory.mktemp("scored") / "curriculum")


@needs_compiler
def test_batches_and_processes_do_not_show_in_the_answers(trained: Curriculum, scored: Curriculum) -> None:
    expected, record = answers(trained), trained.record(1)
    assert len(expected) == 4
    for size, processes in ((1, 1), (3, 1), (3, 2)):
        scored.train(1, "--evaluate-only", "--set", f"SFT_GEN_EVAL_BATCH_SIZE={size}", "--nproc", processes)
        assert answers(scored) == expected, (size, processes)
        again = scored.record(1)
        for when in ("before", "after"):
            old, new = (r["evaluation"][when]["metrics"] for r in (record, again))
            assert scores(new) == scores(old)
            assert new["heldout_loss"] == pytest.approx(old["heldout_loss"], abs=1e-6)
        scored_anew = {"evaluation": None, "checksum": None}
        assert again | scored_anew == record | scored_anew
    assert scored.status() == trained.status()


def test_the_matrix_can_be_recomputed_from_the_sample_files(trained: Curriculum) -> None:
    def mean(samples: list[dict[str, Any]], metric: str) -> float:
        pairs = [sample["tally"][metric] for sample in samples if metric in sample["tally"]]
        return sum(top for top, _ in pairs) / sum(bottom for _, bottom in pairs)

    for stage in (2, 3):
        record = trained.record(stage)
        path = trained.stage_dir(stage) / f"gen_metrics_step{record['training']['kept_step']}.json"
        content = json.loads(path.read_text())
        retention = record["evaluation"]["retention"]
        assert [entry["stage"] for entry in retention] == list(range(1, stage))
        for entry in retention:
            samples = content["samples_retention"][str(entry["stage"])]
            earlier = trained.record(entry["stage"])["evaluation"]
            assert entry["headline"] == earlier["headline"]
            assert entry["now"] == pytest.approx(mean(samples, entry["headline"]))
            assert entry["earlier"] == earlier["after"]["metrics"][entry["headline"]]
            asked = json.loads((trained.stage_dir(entry["stage"]) / "evaluation_set.json").read_text())
            assert len(samples) == len(asked["examples"])
        assert record["evaluation"]["after"]["metrics"]["gen_parse_rate"] == pytest.approx(
            mean(content["samples"], "gen_parse_rate")
        )


def test_the_untouched_base_is_stage_0(scored: Curriculum) -> None:
    said = scored.train(0, "--evaluate-only")
    content = json.loads((scored.folder / "out/lora_stage0/gen_metrics_step0.json").read_text())
    assert [entry["stage"] for entry in content["sets"]] == [1, 2, 3]
    for entry in content["sets"]:
        assert f"on the evaluation set of stage {entry['stage']}" in said
        assert len(content["samples"][str(entry["stage"])]) == entry["metrics"]["gen_samples"]
    before = scored.record(1)["evaluation"]["before"]["metrics"]
    assert content["sets"][0]["metrics"] == pytest.approx(before)


def test_evaluation_does_not_change_the_training(
    new_curriculum: MakeCurriculum, trained: Curriculum, tmp_path: Path
) -> None:
    """With dropout, which draws random numbers: never evaluated, and evaluated after every step."""
    never, always = (new_curriculum(tmp_path / name) for name in ("never", "always"))
    never.set(1, SFT_GEN_EVAL_SAMPLES=0, SFT_GEN_EVAL_BEFORE=0, SFT_EVAL_STEPS=1000, SFT_SAVE_STEPS=1000)
    always.set(1, SFT_EVAL_STEPS=1, SFT_SAVE_STEPS=1, SFT_SAVE_TOTAL_LIMIT=9, SFT_EARLY_STOPPING_PATIENCE=9)
    for curriculum in (never, always):
        curriculum.train(1)
    for name in ("loss", "grad_norm", "learning_rate"):
        assert history(never, name) == history(always, name) == history(trained, name), name
    assert len(history(always, "gen_parse_rate")) == 4
    assert len(history(trained, "gen_parse_rate")) == 2
    left = sorted(path.name for path in always.stage_dir(1).glob("gen_metrics_step*.json"))
    assert left == [f"gen_metrics_step{step}.json" for step in (1, 2, 3, 4)]


def test_the_best_checkpoint_by_a_generated_metric_is_what_is_kept(
    new_curriculum: MakeCurriculum, trained: Curriculum, tmp_path: Path
) -> None:
    """All answers end the same way, so that the first evaluation stays the best; by loss it is the last.
    Early stopping looks at the same metric: one evaluation without a better one, and the stage is done."""
    chosen = new_curriculum(tmp_path / "chosen")
    chosen.set(1, SFT_BEST_METRIC="gen_truncation_rate", SFT_GEN_EVAL_MAX_NEW_TOKENS=1)
    chosen.set(1, SFT_MAX_STEPS=8, SFT_EARLY_STOPPING_PATIENCE=1)
    chosen.train(1)
    training = chosen.record(1)["training"]
    assert (training["best_step"], training["kept_step"], training["steps"]) == (2, 2, 4)
    assert training["best_metric"] == dict(history(chosen, "gen_truncation_rate"))[2] == 1.0
    assert trained.record(1)["training"]["kept_step"] == 4
    assert not [name for entry in training["history"] for name in entry if name.startswith("eval_gen")]
    samples = json.loads((chosen.stage_dir(1) / "gen_metrics_step2.json").read_text())
    assert samples["after"]["metrics"]["gen_samples"] == 4


def test_a_failed_gate_keeps_the_files_and_stops_the_curriculum(trained: Curriculum, tmp_path: Path) -> None:
    """Stage 1 is said to have been better than it was; what stage 2 kept of it then is too little."""
    curriculum = trained.copy_to(tmp_path / "gated")
    record = read_record(curriculum.stage_dir(2))
    assert record is not None
    record.evaluation["retention"][0] |= {"earlier": 0.9, "now": 0.4}
    write_record(curriculum.stage_dir(2), record)
    curriculum.set(2, SFT_RETENTION_MIN=0.8)
    files = sorted(curriculum.stage_dir(2).iterdir())
    failed = curriculum.command("--stage", "all")
    assert failed.returncode == 1
    assert "stage 2 FAILED its retention gate" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert sorted(curriculum.stage_dir(2).iterdir()) == files
    assert "GATE FAILED" in curriculum.status()[1]
    refused = curriculum.command("--stage", 3, "--force")
    assert refused.returncode == 2
    assert "SFT_RETENTION_MIN" in refused.stderr
    curriculum.set(2, SFT_RETENTION_MIN=0.4)
    curriculum.train("all")


def test_only_finished_stages_are_evaluated(new_curriculum: MakeCurriculum, tmp_path: Path) -> None:
    refused = new_curriculum(tmp_path / "new").command("--stage", 1, "--evaluate-only")
    assert refused.returncode == 2
    assert "a complete stage" in refused.stderr
    assert "Traceback" not in refused.stderr

"""An interrupted run is gone on with only as the same run, and only from what is whole."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.lineage import resumption
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.resumption import (
    Progress,
    begun_run,
    find_progress,
    full_fingerprint,
    resumption_problems,
    run_fingerprint,
)
from lib.lineage.trained import TRAINED, keep_trained, read_trained
from lib.planning.obstacles import preconditions
from lib.planning.stage_batch import with_batch
from lib.settings import InputError
from lib.training.checkpoints.manifest import seal
from lib.training.sizing.world import World
from lib.training.trainer import FitResult

FITTED = FitResult(5, 1.0, 100, 2.0, {"eval_loss": 1.25}, 5, 5, 1.25, 10**9, [{"loss": 2.0, "step": 5}])


def planned(curriculum: Any, *, nproc: int = 1, **keywords: Any) -> SurveyedStage:
    return with_batch(curriculum.surveyed(1, **keywords), World(nproc, 0))


def interrupted(curriculum: Any, *steps: int) -> Path:
    """Stage 1 with checkpoints of the run that its file describes now."""
    stage = planned(curriculum)
    for step in steps:
        folder = stage.settings.stage_dir / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": min(steps)}))
        seal(folder, step, run_fingerprint(stage))
    return stage.settings.stage_dir


def progress(stage: SurveyedStage, *, restart: bool = False) -> Progress:
    return find_progress(stage, run_fingerprint(stage), goes_back=True, restart=restart)


def test_nothing_there_begins(curriculum: Any) -> None:
    curriculum.stage(1)
    stage = planned(curriculum)
    assert begun_run(stage) is None
    assert progress(stage).anew


def test_the_newest_checkpoint_of_the_same_run_is_gone_on_from(curriculum: Any) -> None:
    curriculum.stage(1)
    interrupted(curriculum, 4, 8)
    stage = planned(curriculum)
    begun = begun_run(stage)
    assert begun is not None
    assert begun.where == "at step 8"
    found = progress(stage)
    assert (found.step, found.notices) == (8, ("  going on from step 8",))
    assert preconditions(stage) == []


def test_keys_without_effect_may_differ(curriculum: Any) -> None:
    curriculum.stage(1)
    interrupted(curriculum, 4)
    curriculum.stage(1, SFT_LOGGING_STEPS=3, SFT_SAVE_TOTAL_LIMIT=7, SFT_TENSORBOARD=1)
    assert resumption_problems(planned(curriculum)) == []
    assert progress(planned(curriculum)).step == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"SFT_LR": "9e-5", "SFT_SEED": 5}, "SFT_LR changed from 1e-4 to 9e-5"),
        ({"SFT_CHAT_TEMPLATE": "llama3"}, "the chat template changed"),
        ({"SFT_PER_DEVICE_TRAIN_BS": 4}, "rows per device and pass changed from 2 to 4"),
    ],
)
def test_another_run_is_refused_with_every_difference(
    keys: dict[str, Any], message: str, curriculum: Any
) -> None:
    curriculum.stage(1)
    folder = interrupted(curriculum, 4)
    curriculum.stage(1, **keys)
    stage = planned(curriculum)
    for check in (lambda: preconditions(stage), lambda: progress(stage)):
        with pytest.raises(InputError, match=message) as refused:
            check()
        assert len(refused.value.problems) >= len(keys)
        assert all("--restart" in problem.remedy for problem in refused.value.problems)
        assert "interrupted at step 4" in str(refused.value)
    assert (folder / "checkpoint-4").is_dir()  # nothing was touched
    assert preconditions(stage, restart=True) == []
    assert progress(stage, restart=True).anew


def test_changed_data_is_another_run(curriculum: Any) -> None:
    curriculum.stage(1)
    interrupted(curriculum, 4)
    curriculum.write_rows(41)
    with pytest.raises(InputError, match=r"data set .*rows.jsonl changed"):
        progress(planned(curriculum))


def test_another_version_is_another_run(curriculum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    curriculum.stage(1)
    interrupted(curriculum, 4)
    monkeypatch.setattr(resumption, "library_version", lambda library: f"{library} 99")
    with pytest.raises(InputError, match="torch version changed from 2"):
        progress(planned(curriculum))


def test_another_number_of_processes_is_refused_with_what_to_do(curriculum: Any) -> None:
    curriculum.stage(1)
    interrupted(curriculum, 4)
    with pytest.raises(InputError, match="processes changed from 1 to 2") as refused:
        preconditions(planned(curriculum, nproc=2))
    assert "--nproc" in str(refused.value)


def test_a_plan_does_not_know_all_that_a_run_knows(curriculum: Any) -> None:
    """Precision, sharding and what the Hub gave are compared by the run alone."""
    curriculum.stage(1)
    stage = planned(curriculum)
    data: Any = SimpleNamespace(
        sources=[
            SimpleNamespace(id="owner/set", split="train", fingerprint="abc"),
            *curriculum.prepared(stage).sources,
        ]
    )
    compute: Any = SimpleNamespace(dtype="torch.float32", attention="sdpa")
    full = full_fingerprint(stage, data, compute, World(1, 0))
    added = {key: value for key, value in full.items() if key not in run_fingerprint(stage)}
    assert added == {
        "device": "CPU", "precision": "float32", "attention": "sdpa", "sharding": "none",
        "Hub data set owner/set (train)": "abc",
    }  # fmt: skip
    folder = stage.settings.stage_dir / "checkpoint-3"
    folder.mkdir(parents=True)
    seal(folder, 3, full)
    assert resumption_problems(planned(curriculum)) == []
    assert preconditions(curriculum.surveyed(1)) == []  # the batch is not planned yet
    with pytest.raises(InputError, match="precision changed from float32 to bfloat16"):
        find_progress(planned(curriculum), {**full, "precision": "bfloat16"}, goes_back=False, restart=False)


def test_a_complete_stage_that_runs_again_begins_anew(curriculum: Any) -> None:
    curriculum.stage(1)
    interrupted(curriculum, 4)
    curriculum.train(1)
    assert progress(planned(curriculum)).anew


def test_trained_and_not_evaluated(curriculum: Any) -> None:
    curriculum.stage(1)
    folder = interrupted(curriculum, 4)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    stage = planned(curriculum)
    keep_trained(folder, run_fingerprint(stage), FITTED)
    assert curriculum.surveyed(1).status.line().endswith("at step 5, trained and not evaluated")
    found = progress(planned(curriculum))
    assert (found.step, found.fitted) == (None, FITTED)
    assert "trained already, 5 steps" in found.notices[0]
    (folder / "adapter_model.safetensors").write_bytes(b"Weights")  # not what training came to
    assert progress(planned(curriculum)).step == 4
    text = (folder / TRAINED).read_text()
    (folder / TRAINED).write_text(text.replace('"steps": 5', '"steps": 6'))
    assert read_trained(folder) is None


def test_the_plan_says_where_it_would_go_on(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from lib.commands.arguments import parse
    from lib.commands.show import show_plans

    curriculum.stage(1)
    interrupted(curriculum, 4, 8)
    line = "goes on where it was interrupted: at step 8"
    arguments = ["--stage", "1", "--plan", "--stages-dir", str(curriculum.stages)]
    assert show_plans(parse(arguments, ""), [1], World(1, 0)) == 0
    assert line in capsys.readouterr().out
    assert show_plans(parse([*arguments, "--restart"], ""), [1], World(1, 0)) == 0
    assert line not in capsys.readouterr().out
    curriculum.stage(1, SFT_LR="9e-5")
    with pytest.raises(InputError, match="SFT_LR changed"):
        show_plans(parse(arguments, ""), [1], World(1, 0))
    assert line not in capsys.readouterr().out

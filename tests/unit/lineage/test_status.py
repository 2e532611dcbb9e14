"""survey: where every stage stands, judged by content."""

import json
import shutil
from importlib import metadata
from typing import Any

import pytest

from lib.lineage import file_hashes, fingerprint
from lib.lineage.ancestry import WITHOUT_EFFECT
from lib.settings import InputError
from lib.settings.stage import KEYS
from lib.training.checkpoints.manifest import seal


def states(curriculum: Any, *chosen: int) -> list[str]:
    return [stage.status.state for stage in curriculum.survey(*chosen)]


def test_missing_then_complete(curriculum: Any) -> None:
    curriculum.stage(1)
    assert curriculum.surveyed(1).status.line() == "stage 1  missing"
    curriculum.train(1)
    status = curriculum.surveyed(1).status
    assert (status.state, status.reasons) == ("complete", ())
    expected = "stage 1  complete     5 steps  eval_loss 1.250  gen_leaf_f1 0.500  gen_parse_rate 0.500"
    assert status.line() == expected
    assert status.folder == str(curriculum.folder(1))


def test_interrupted_at_the_newest_whole_checkpoint(curriculum: Any) -> None:
    curriculum.stage(1)
    folder = curriculum.folder(1)
    folder.mkdir(parents=True)
    assert "before its first checkpoint" in curriculum.surveyed(1).status.line()
    for name in (
        "checkpoint-9",
        "checkpoint-20",
        "checkpoint-100",
        "checkpoint-best",
        "checkpoint-7.damaged",
    ):
        (folder / name).mkdir()
    seal(folder / "checkpoint-9", 9, {})
    seal(folder / "checkpoint-20", 20, {})
    status = curriculum.surveyed(1).status
    assert (status.state, status.summary) == ("interrupted", "at step 20")
    (folder / "checkpoint-20" / "more").touch()
    assert curriculum.surveyed(1).status.summary == "at step 9"


def test_all_complete_and_nothing_else_is_up_to_date(trained: Any) -> None:
    assert states(trained) == states(trained, 1, 2, 3) == ["complete"] * 3


def test_a_setting_changed(trained: Any) -> None:
    trained.stage(2, SFT_LR="9e-5")
    first, second, third = (stage.status for stage in trained.survey())
    assert first.state == "complete"
    assert (second.state, second.reasons) == ("stale", ("SFT_LR changed from 1e-4 to 9e-5",))
    assert (third.state, third.reasons) == ("stale", ("stage 2 is stale",))


def test_a_setting_without_effect_on_what_is_learned(trained: Any) -> None:
    keys = {
        "SFT_LOGGING_STEPS": 3,
        "SFT_STRICT": 0,
        "SFT_GEN_EVAL_SAMPLES": 7,
        "SFT_SAVE_TOTAL_LIMIT": 9,
        "MLFLOW_EXPERIMENT_NAME": "other",
    }
    trained.stage(2, **keys)
    assert states(trained, 2) == ["complete"] * 3
    assert set(KEYS) >= WITHOUT_EFFECT


def test_the_data_changed(trained: Any) -> None:
    trained.write_rows(41)
    assert states(trained) == ["stale"] * 3
    (reason,) = trained.surveyed(1).status.reasons
    assert reason == f"data set {trained.data} changed"
    trained.data.unlink()
    assert trained.surveyed(1).status.reasons == (f"data set {trained.data} is no longer used",)


def test_the_base_changed(trained: Any) -> None:
    (trained.base / "config.json").write_text("{}")
    assert trained.surveyed(1).status.reasons == ("the base model changed",)


def test_the_tokenizer_changed(trained: Any) -> None:
    config = trained.base / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "<unk>"}))
    assert trained.surveyed(1).status.reasons == ("the tokenizer changed",)


def test_the_chat_template_changed(trained: Any) -> None:
    template = trained.base / "chat_template.jinja"
    source = template.read_text()
    template.write_text(source + "{# another #}")
    assert trained.surveyed(1).status.reasons == ("the chat template changed",)
    mine = trained.root / "mine.jinja"
    mine.write_text(source)
    for number in (1, 2, 3):
        trained.stage(number, SFT_CHAT_TEMPLATE=mine)
    assert states(trained) == ["complete"] * 3, "the same template under another name"
    mine.write_text(source + " ")
    assert trained.surveyed(1).status.reasons == ("the chat template changed",)
    mine.unlink()
    assert trained.surveyed(1).status.reasons == ("the chat template changed",)


def test_a_template_for_one_run_does_not_make_the_ancestors_stale(trained: Any) -> None:
    found = trained.survey(3, environ={"SFT_CHAT_TEMPLATE": "zephyr"})
    assert [stage.status.state for stage in found] == ["complete", "complete", "stale"]


@pytest.mark.parametrize(
    ("library", "then", "reason", "remark"),
    [
        ("peft", "0.18.9", "peft changed from 0.18 to 0.21", ""),
        ("transformers", "4.57.0", "transformers changed from 4 to 5", "transformers 4.57, now 5.23"),
        ("transformers", "5.1.0", "", "transformers 5.1, now 5.23"),
        ("torch", "2.12.1", "", "torch 2.12, now 2.13"),
        ("trl", "1.15.0", "", "trl 1.15, now 1.16"),
        ("torch", "2.13.9+cu130", "", ""),
        ("mlflow", "1.0.0", "", ""),
    ],
)
def test_what_another_version_of_a_library_means(
    library: str, then: str, reason: str, remark: str, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained with the version `then`, looked at with those that are pinned."""
    pinned = {"peft": "0.21.2", "transformers": "5.23.0", "torch": "2.13.0", "trl": "1.16.0"}
    installed = pinned | {library: then}
    monkeypatch.setattr(metadata, "version", lambda name: installed.get(name, "1.0"))
    trained.train(1, adapter=b"adapter 1")
    installed |= pinned
    status = trained.surveyed(1).status
    assert status.reasons == ((reason,) if reason else ())
    assert remark in status.line()
    assert bool(status.remarks) == bool(remark)


def test_a_large_base_that_was_never_read_is_compared_by_its_ends(
    curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan does not read 61 GB; that it did not is said, and the ends of the files still tell a lot."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(curriculum.root / "cache"))
    weights = curriculum.base / "model.safetensors"
    weights.write_bytes(b"a" * 300)
    curriculum.stage(1)
    curriculum.train(1)
    monkeypatch.setattr(file_hashes, "REMEMBERED_BYTES", 100)
    monkeypatch.setattr(fingerprint, "REMEMBERED_BYTES", 100)
    monkeypatch.setattr(fingerprint, "END_BYTES", 10)
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1)
    curriculum.train(1, thorough=True)
    assert (curriculum.state(1), curriculum.surveyed(1).status.remarks) == ("complete", ())

    weights.write_bytes(b"a" * 150 + b"b" + b"a" * 149)
    status = curriculum.surveyed(1).status
    assert status.state == "complete"
    assert "not read whole" in status.line()
    assert curriculum.surveyed(1, thorough=True).status.reasons == ("the base model changed",)
    weights.write_bytes(b"b" + b"a" * 299)
    assert curriculum.surveyed(1).status.reasons == ("the base model changed",)


def test_a_base_that_is_not_here_is_compared_by_name(trained: Any) -> None:
    away = trained.base.rename(trained.root / "away")
    status = trained.surveyed(1).status
    assert status.state == "complete"
    assert "not on this machine" in status.line()
    away.rename(trained.base)
    trained.stage(1, SFT_BASE_MODEL="owner/other")
    assert trained.surveyed(1).status.reasons == ("the base model changed",)


def test_a_base_that_only_moved_is_the_same(trained: Any) -> None:
    moved = trained.base.rename(trained.root / "moved")
    for number in (1, 2, 3):
        trained.stage(number, SFT_BASE_MODEL=moved)
    assert states(trained, 1, 2, 3) == ["complete"] * 3


def test_a_parent_was_retrained_added_or_removed(trained: Any) -> None:
    trained.train(1, adapter=b"other weights")
    second, third = trained.survey()[1:]
    assert second.status.reasons == ("stage 1 was retrained",)
    assert third.status.reasons == ("stage 1 was retrained", "stage 2 is stale")
    shutil.rmtree(trained.folder(1))
    assert trained.surveyed(2).status.reasons == ("stage 1 was removed",)


def test_a_parent_that_appeared_later(curriculum: Any) -> None:
    curriculum.stage(2, SFT_STRICT=0)
    curriculum.train(2)
    assert curriculum.state(2) == "complete"
    curriculum.stage(1)
    curriculum.train(1)
    assert curriculum.surveyed(2).status.reasons == ("stage 1 was added",)


def test_what_is_run_now_answers_for_overrides_and_ancestors_do_not(trained: Any) -> None:
    """`--set SFT_LR=…` is for the stage that runs; nobody repeats those of stage 1 for stage 2."""
    lr = ["SFT_LR=5e-5"]
    assert [s.status.state for s in trained.survey(3, overrides=lr)] == ["complete", "complete", "stale"]
    trained.train(1, adapter=b"adapter 1", chosen=(1,), overrides=lr)
    assert trained.surveyed(1).status.reasons == ("SFT_LR changed from 5e-5 to 1e-4",)
    assert trained.state(1, overrides=lr) == "complete"
    assert trained.state(1, chosen=(3,)) == "complete"
    assert trained.state(3) == "complete"


def test_the_environment_of_one_run_does_not_make_its_ancestors_stale(trained: Any) -> None:
    environ = {"SFT_EPOCHS": "2", "SFT_DATASET_ID": str(trained.data), "HOME": "/"}
    found = trained.survey(3, environ=environ)
    assert [stage.status.state for stage in found] == ["complete", "complete", "stale"]
    assert found[2].status.reasons == ("SFT_EPOCHS changed from 1 to 2",)
    other = trained.root / "other.jsonl"
    shutil.copy(trained.data, other)
    passing = trained.survey(3, environ={"SFT_DATASET_ID": str(other)})
    assert [stage.status.state for stage in passing] == ["complete", "complete", "stale"]


def test_problems_of_all_stage_files_come_together(curriculum: Any) -> None:
    curriculum.stage(1, SFT_LR="fast")
    curriculum.stage(2, SFT_EPOCHS="none")
    with pytest.raises(InputError) as caught:
        curriculum.survey()
    assert [problem.key for problem in caught.value.problems] == ["SFT_LR", "SFT_EPOCHS"]

import errno
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib import files
from lib.files import write_json
from lib.lineage.card import model_card
from lib.lineage.completion import finish_stage, open_stage
from lib.lineage.record import RECORD, RUNNING, code_version, read_record, versions
from lib.lineage.stage_lock import hold_stage
from lib.model.base import StackedAdapters, StageBase
from lib.training.machines.alone import ALONE


def test_a_record_comes_back_as_it_was_written(curriculum: Any) -> None:
    curriculum.stage(1)
    written = curriculum.train(1)
    found = read_record(curriculum.folder(1))
    assert found is not None
    assert asdict(replace(found, checksum="")) == json.loads(json.dumps(asdict(written)))
    assert found.intact
    assert {"adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"} <= found.files.keys()
    assert found.chat["end_tokens"] == ["<|im_end|>"]
    assert found.data["ledger"]["upsampled"] == 38
    assert [source["id"] for source in found.data["sources"]] == [str(curriculum.data)]
    assert found.training["tokens_per_second"] == 50
    assert found.adapter["trainable"] == 30
    assert found.evaluation["after"]["metrics"]["gen_parse_rate"] == 0.5
    assert found.versions["python"]
    assert found.versions["code"]


def test_a_record_changed_by_hand_is_not_intact(curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.train(1)
    path = curriculum.folder(1) / RECORD
    content = json.loads(path.read_text())
    for change in (
        {"finished": "yesterday"},
        {"training": content["training"] | {"steps": 6}},
        {"checksum": ""},
    ):
        write_json(path, content | change)
        found = read_record(curriculum.folder(1))
        assert found is not None
        assert not found.intact
    write_json(path, dict(reversed(content.items())))
    found = read_record(curriculum.folder(1))
    assert found is not None
    assert found.intact, "the order of the keys says nothing"


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"stage": 1}', "\x00\x00"])
def test_a_damaged_record_counts_as_none(damage: str, curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.train(1)
    (curriculum.folder(1) / RECORD).write_text(damage)
    assert read_record(curriculum.folder(1)) is None


def test_a_record_of_another_schema_counts_as_none(curriculum: Any) -> None:
    curriculum.stage(1)
    written = asdict(curriculum.train(1))
    write_json(curriculum.folder(1) / RECORD, written | {"schema": 999})
    assert read_record(curriculum.folder(1)) is None
    write_json(curriculum.folder(1) / RECORD, written | {"a key of a later version": 1})
    assert read_record(curriculum.folder(1)) is not None


def test_no_record_no_folder(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nowhere") is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"名": 1})
    assert json.loads(path.read_text()) == {"名": 1}

    def power_cut(file: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", power_cut)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"other": 2})
    assert json.loads(path.read_text()) == {"名": 1}


def test_the_record_is_the_last_file_and_the_samples_lie_beside_it(
    curriculum: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    real = files.os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append(Path(b).name), real(a, b)))
    curriculum.stage(1)
    curriculum.train(1)
    assert order == ["evaluation_set.json", "gen_metrics_step5.json", "README.md", RECORD]
    folder = curriculum.folder(1)
    metrics = json.loads((folder / "gen_metrics_step5.json").read_text())
    assert metrics["step"] == 5
    assert metrics["after"]["metrics"]["gen_parse_rate"] == 0.5
    assert [sample["row"] for sample in metrics["samples"]] == ["heldout#0"]
    assert "samples" not in json.loads((folder / RECORD).read_text())["evaluation"]["after"]
    printed = capsys.readouterr().out
    assert "trained 5 steps on 100 tokens in 2 s, 50 tokens/s" in printed
    assert "  2 held-out rows                after" in printed
    assert "    gen_parse_rate               0.500 [0.25, 0.75]" in printed


def test_neither_password_nor_address_is_recorded(curriculum: Any) -> None:
    curriculum.stage(1, MLFLOW_TRACKING_URI="https://me:hunter2@host")
    curriculum.train(1)
    for path in curriculum.folder(1).iterdir():
        assert b"hunter2" not in path.read_bytes(), path


def test_the_card_says_what_must_lie_under_the_adapter(curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.stage(2)
    curriculum.train(1)
    card = model_card(curriculum.train(1), curriculum.folder(1))
    assert card.startswith(f"---\nbase_model: {curriculum.base}\nlibrary_name: peft\n")
    assert "(the stage-0 base)" in card
    assert "It trains 30 parameters, 20 of them in experts." in card
    assert f"| {curriculum.data} | 70 |" in card
    assert "| gen_parse_rate | 0.5000 |" in card
    assert f'PeftModel.from_pretrained(base, "{curriculum.folder(1)}")' in card
    second = curriculum.train(2)
    assert "with the adapters of stage 1 merged into it" in model_card(second, curriculum.folder(2))
    assert (curriculum.folder(2) / "README.md").read_text() == model_card(second, curriculum.folder(2))


def test_the_record_and_the_card_of_a_stacked_stage_name_what_lies_beside(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number, SFT_MERGE_MODE="stack")
    parents = [curriculum.train(number, adapter=f"adapter {number}".encode()) for number in (1, 2)]
    path = str(curriculum.base)
    stacked = StackedAdapters(("first", "second"), targets=12, parameters=3456, adapter_tensors_used=48)
    base = StageBase(path, "", path, False, False, 0.0, mode="stack", stacked=stacked)
    record = curriculum.record(curriculum.surveyed(3), base=base)
    assert record.merge_mode == record.base["mode"] == "stack"
    assert record.base["earlier_stages"] == {"1": parents[0].adapter_sha256, "2": parents[1].adapter_sha256}
    assert record.base["stacked"]["parameters"] == 3456
    card = model_card(record, curriculum.folder(3))
    assert "(the stage-0 base, with the adapters of stage 1, stage 2 beside its weights)" in card
    below = [f'from_pretrained(base, "{curriculum.folder(number)}").merge_and_unload()' for number in (1, 2)]
    assert -1 < card.index(below[0]) < card.index(below[1]) < card.index("model = PeftModel")


def test_a_record_from_before_there_was_a_choice_was_merged(curriculum: Any) -> None:
    curriculum.stage(1)
    record = curriculum.train(1)
    del record.base["mode"]
    assert record.merge_mode == "merge"


class OneProcess:
    """Rank 0 of one."""

    machines = ALONE
    is_main = True
    arguments = SimpleNamespace(load_best_model_at_end=True)

    def gather(self, items: list[Any]) -> list[Any]:
        return items


def test_what_made_an_opened_stage_complete_is_gone(curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.train(1)
    folder = curriculum.folder(1)
    for name in ("checkpoint-5", "checkpoint-4.damaged"):
        (folder / name).mkdir()
    for name in ("notes.txt", "tracking.json", "trained.json"):
        (folder / name).write_text("the user's own")
    stage = curriculum.surveyed(1)
    processes: Any = OneProcess()
    with hold_stage(stage.settings, processes):
        assert json.loads((folder / RUNNING).read_text())["pid"]
        assert open_stage(stage, {}, processes, restart=False).anew
        names = {path.name for path in folder.iterdir()}
        assert not names & {RECORD, "checkpoint-5", "gen_metrics_step5.json", "tracking.json", "trained.json"}
        assert names >= {"notes.txt", "checkpoint-4.damaged"}
    assert not (folder / RUNNING).exists()
    with pytest.raises(KeyboardInterrupt), hold_stage(stage.settings, processes):
        raise KeyboardInterrupt
    assert not (folder / RUNNING).exists()
    assert curriculum.state(1) == "interrupted"


def test_a_stage_that_left_nothing_leaves_no_folder(curriculum: Any) -> None:
    curriculum.stage(1)
    settings = curriculum.surveyed(1).settings
    processes: Any = OneProcess()
    with hold_stage(settings, processes):
        assert settings.stage_dir.is_dir()
    assert not settings.stage_dir.exists()


def test_versions_name_what_computes() -> None:
    found = versions()
    assert {"python", "code", "torch", "transformers", "peft", "trl"} <= set(found)
    assert found["torch"] != "not installed"
    assert code_version()


def test_finishing_twice_is_harmless(curriculum: Any) -> None:
    curriculum.stage(1)
    written = curriculum.train(1)
    finish_stage(curriculum.folder(1), written)
    assert curriculum.state(1) == "complete"


@pytest.mark.parametrize("nth", range(2))
@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
def test_whichever_write_of_the_end_fails_the_stage_is_not_complete_and_can_be_ended_again(
    operation: str, nth: int, curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's, then the record's: its file, its way to the disk, its rename."""
    curriculum.stage(1)
    written = curriculum.train(1)
    folder = curriculum.folder(1)
    for name in (RECORD, "README.md"):
        (folder / name).unlink()
    calls = iter(range(9))

    def failing(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == nth:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        if operation == "open":
            patch.setattr(files.Path, "open", failing(Path.open))
        else:
            patch.setattr(files.os, operation, failing(getattr(files.os, operation)))
        with pytest.raises(OSError, match="No space left"):
            finish_stage(folder, written)
    assert read_record(folder) is None
    assert curriculum.state(1) != "complete"
    assert (folder / "README.md").exists() == (nth == 1)
    finish_stage(folder, written)
    assert curriculum.state(1) == "complete"
    assert not list(folder.glob("*.part"))

"""Which model a command line names: stages judged by content, adapters on their own base."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.inference.folder_source import folder_source
from lib.inference.source import ModelSource, stage_source
from lib.lineage.completion import finish_stage
from lib.model.base import StageBase
from lib.planning.stage_batch import with_batch
from lib.settings import InputError
from lib.training.sizing.world import World


@pytest.fixture
def trained(curriculum: Any) -> Any:
    for number in (1, 2):
        curriculum.stage(number, SFT_GEN_EVAL_MAX_NEW_TOKENS=77, SFT_GEN_EVAL_TASK="chat")
    (curriculum.base / "model.safetensors").write_bytes(b"weights of the base")
    for number in (1, 2):
        curriculum.train(number, adapter=f"adapter {number}".encode())
    return curriculum


def refusal(make: Callable[[], ModelSource]) -> str:
    with pytest.raises(InputError) as caught:
        make()
    return str(caught.value)


def test_a_stage_stands_on_all_earlier_ones(trained: Any) -> None:
    source = stage_source(trained.stages, 2, [])
    assert source.base.base_model == str(trained.base)
    assert source.earlier == (trained.folder(1),)
    assert source.adapter == source.tokenizer == trained.folder(2)
    assert source.key == trained.surveyed(2).chain.key
    assert (source.habits.max_new_tokens, source.habits.task) == (77, "chat")
    assert source.notices == ()


def test_stage_0_is_the_base_alone(trained: Any) -> None:
    source = stage_source(trained.stages, 0, ["SFT_CHAT_TEMPLATE=chatml"])
    assert (source.adapter, source.earlier, source.tokenizer) == (None, (), None)
    assert (source.base.base_model, source.template) == (str(trained.base), "chatml")


def test_a_stage_that_would_be_trained_otherwise_now_is_used_and_said(trained: Any) -> None:
    trained.stage(2, SFT_LR="9e-5", SFT_GEN_EVAL_MAX_NEW_TOKENS=77, SFT_GEN_EVAL_TASK="chat")
    (notice,) = stage_source(trained.stages, 2, []).notices
    assert "stage 2 is stale (SFT_LR changed from 1e-4 to 9e-5)" in notice
    assert "python train.py --stage 2" in notice


def test_one_runs_overrides_make_nothing_stale(trained: Any) -> None:
    assert stage_source(trained.stages, 2, ["SFT_LR=3e-5"]).notices == ()


def test_a_stage_that_is_not_complete_is_refused(trained: Any) -> None:
    trained.stage(3)
    said = refusal(lambda: stage_source(trained.stages, 3, []))
    assert "missing" in said
    assert "python train.py --stage 3" in said
    assert "stage9.env" in refusal(lambda: stage_source(trained.stages, 9, []))


def test_a_stage_on_another_base_is_refused(trained: Any) -> None:
    (trained.base / "model.safetensors").write_bytes(b"other weights")
    assert "the base model changed" in refusal(lambda: stage_source(trained.stages, 1, []))


def test_a_stage_without_its_parent_is_refused(trained: Any) -> None:
    shutil.rmtree(trained.folder(1))
    assert "stage 1 was removed" in refusal(lambda: stage_source(trained.stages, 2, []))


def test_a_stage_whose_files_were_changed_is_refused(trained: Any) -> None:
    (trained.folder(2) / "chat_template.jinja").write_text("{{ messages }}")
    said = refusal(lambda: stage_source(trained.stages, 2, []))
    assert "its chat_template.jinja is not the one that was recorded" in said


def test_a_model_folder(trained: Any) -> None:
    source = folder_source(trained.base, "")
    assert (source.base.base_model, source.adapter, source.key) == (str(trained.base), None, "")
    assert source.habits.max_new_tokens == 1024


@pytest.mark.parametrize("base", ["", "some/model"])
def test_folders_that_hold_neither_model_nor_adapter(tmp_path: Path, base: str) -> None:
    said = refusal(lambda: folder_source(tmp_path, base))
    assert "--model" in said
    assert "adapter_config.json" in said
    assert "which is no folder" in refusal(lambda: folder_source(tmp_path / "absent", ""))


def test_an_adapter_without_a_record_stands_on_the_base_that_it_names(trained: Any, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(trained.base)}))
    source = folder_source(folder, "")
    assert (source.base.base_model, source.adapter, source.tokenizer) == (str(trained.base), folder, None)
    shutil.copy(trained.base / "tokenizer.json", folder)
    assert folder_source(folder, "").tokenizer == folder
    assert folder_source(folder, str(trained.base)).base.base_model == str(trained.base)
    (folder / "adapter_config.json").write_text("{}")
    assert "--base" in refusal(lambda: folder_source(folder, ""))
    assert "--base" in refusal(lambda: folder_source(folder, str(tmp_path / "absent")))


def test_a_stages_folder_stands_on_what_its_record_says(trained: Any) -> None:
    """The merged base is not there, so it is what the base would be merged from."""
    source = folder_source(trained.folder(2), "")
    assert source.base.base_model == str(trained.base)
    assert source.earlier == (trained.folder(1),)
    assert source.key == stage_source(trained.stages, 2, []).key
    assert source.habits.markers == ("Output:",), "those of its evaluation set"


def test_a_stages_folder_whose_base_changed_is_refused(trained: Any) -> None:
    (trained.folder(1) / "adapter_model.safetensors").write_bytes(b"another")
    said = refusal(lambda: folder_source(trained.folder(2), ""))
    assert "the base that this stage was trained on" in said
    assert "--base" in said
    shutil.rmtree(trained.folder(1))
    assert "--base" in refusal(lambda: folder_source(trained.folder(2), ""))
    assert folder_source(trained.folder(2), str(trained.base)).earlier == ()


def test_a_stage_that_is_asked_on_another_base_than_it_was_trained_on(trained: Any, tmp_path: Path) -> None:
    assert folder_source(trained.folder(1), str(trained.base)).notices == ()
    shutil.copytree(trained.base, tmp_path / "other")
    (notice,) = folder_source(trained.folder(1), str(tmp_path / "other")).notices
    assert f"was trained on {trained.base}; it is asked on {tmp_path / 'other'}" in notice


def test_another_template_and_precision(trained: Any) -> None:
    source = folder_source(trained.base, "")
    changed = source.asked_with("chatml", "bf16")
    assert (changed.template, changed.base.dtype) == ("chatml", "bf16")
    assert source.asked_with("", None) == source
    said = refusal(lambda: source.asked_with("chatlm", None))
    assert said.startswith("command line: --chat-template")
    assert "Did you mean chatml?" in said


def test_its_identity_follows_content(trained: Any, tmp_path: Path) -> None:
    source = folder_source(trained.base, "")
    shutil.copytree(trained.base, tmp_path / "moved")
    assert folder_source(tmp_path / "moved", "").identity() == source.identity()
    assert source.asked_with("zephyr", None).identity() != source.identity()
    (tmp_path / "moved" / "model.safetensors").write_bytes(b"other")
    assert folder_source(tmp_path / "moved", "").identity() != source.identity()
    one, two = (stage_source(trained.stages, number, []).identity() for number in (1, 2))
    assert one["adapter"] != two["adapter"]
    assert one["base"] != two["base"]


@pytest.fixture
def in_four_bits(curriculum: Any) -> Any:
    """Two stages, trained on a base that was loaded as nf4."""
    (curriculum.base / "model.safetensors").write_bytes(b"weights of the base")
    base = StageBase(
        str(curriculum.base), "", str(curriculum.base), False, False, 0.0, quantization="nf4-double"
    )
    for number in (1, 2):
        curriculum.stage(number, SFT_QUANTIZATION="nf4-double")
        stage = with_batch(curriculum.surveyed(number), World(1, 0))
        finish_stage(curriculum.folder(number), curriculum.record(stage, base=base))
    return curriculum


def test_a_stage_is_loaded_as_it_was_trained(in_four_bits: Any) -> None:
    """By its number, by its folder, on a base that is named, and when its file changes its mind."""
    folder, base = in_four_bits.folder(2), str(in_four_bits.base)
    for source in (
        stage_source(in_four_bits.stages, 2, []),
        folder_source(folder, ""),
        folder_source(folder, base),
    ):
        assert source.base.quantization == "nf4-double"
    in_four_bits.stage(2, SFT_QUANTIZATION="none")
    asked = stage_source(in_four_bits.stages, 2, [])
    assert asked.base.quantization == "nf4-double"
    assert "used as it was trained" in asked.notices[0]
    assert stage_source(in_four_bits.stages, 2, ["SFT_QUANTIZATION=nf4"]).base.quantization == "nf4"


def test_another_quantisation_is_another_model(in_four_bits: Any) -> None:
    source = stage_source(in_four_bits.stages, 2, [])
    plain = source.asked_with(quantization="none")
    assert plain.base.quantization == "none"
    assert plain.identity()["base"] != source.identity()["base"]
    assert source.asked_with() == source


def test_four_bits_that_cannot_be_had(in_four_bits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stage_source(in_four_bits.stages, 2, [])
    stacked = replace(source, mode="stack")
    assert "SFT_MERGE_MODE=stack" in refusal(stacked.asked_with)
    assert stacked.asked_with(quantization="none").base.quantization == "none"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install bitsandbytes" in refusal(source.asked_with)

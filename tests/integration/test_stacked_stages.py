"""`SFT_MERGE_MODE=stack` through the real commands: the same files as with merge, and no merged base."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_distance import SHARE_OF_EFFECT, distance, load
from peft import PeftModel
from safetensors.torch import load_file
from tiny_curriculum import STAGES, Curriculum
from transformers import PreTrainedModel

from lib.data.chat.chat_format import ChatFormat
from lib.evaluation.evaluation_set import read_evaluation_set
from lib.evaluation.generation import row_losses, token_loss

STACK = ("--set", "SFT_MERGE_MODE=stack")
MakeCurriculum = Callable[[Path], Curriculum]
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="DeepSpeed compiles its CPU communication with a C++ compiler, and there is none",
)


@pytest.fixture(scope="module")
def stacked(new_curriculum: MakeCurriculum, tmp_path_factory: pytest.TempPathFactory) -> Curriculum:
    """A curriculum after `--stage all --set SFT_MERGE_MODE=stack`. Only to be looked at."""
    curriculum = new_curriculum(tmp_path_factory.mktemp("stacked") / "curriculum")
    (curriculum.folder / "said.txt").write_text(curriculum.train("all", *STACK), encoding="utf-8")
    return curriculum


def base_of(curriculum: Curriculum, base: Path, stage: int) -> PreTrainedModel:
    """The base with the adapters below `stage`, each merged by plain PEFT, in fp32."""
    model = load(base)
    for earlier in range(1, stage):
        model = PeftModel.from_pretrained(model, curriculum.stage_dir(earlier)).merge_and_unload()
    return model


def test_the_files_are_those_of_merge_without_the_merged_bases(
    trained: Curriculum, stacked: Curriculum
) -> None:
    def left(curriculum: Curriculum) -> set[str]:
        return {name for name in curriculum.left_behind() if name.startswith("out/")}

    assert left(stacked) == {name for name in left(trained) if "_merged_base" not in name}
    for stage in STAGES:
        adapters = [load_file(c.stage_dir(stage) / "adapter_model.safetensors") for c in (trained, stacked)]
        shapes = [{name: (t.shape, t.dtype) for name, t in tensors.items()} for tensors in adapters]
        assert shapes[0] == shapes[1]


def test_a_stage_without_ancestors_is_the_same_in_both_modes(
    trained: Curriculum, stacked: Curriculum
) -> None:
    assert stacked.record(1)["adapter_sha256"] == trained.record(1)["adapter_sha256"]
    changed = [plan for plan in stacked.plans("all") if plan["state"] == "stale"]
    assert [plan["stage"] for plan in changed] == [2, 3]
    assert "SFT_MERGE_MODE changed from stack to merge" in changed[0]["reasons"]


def test_training_starts_where_merge_starts(trained: Curriculum, stacked: Curriculum) -> None:
    """Up to the one rounding of the merged base's weights."""
    for stage in STAGES:
        first = [c.record(stage)["training"]["history"][0]["loss"] for c in (trained, stacked)]
        assert first[1] == pytest.approx(first[0], rel=0.01)


def test_the_record_names_the_mode_and_the_ancestors(stacked: Curriculum, tiny_base: Path) -> None:
    for stage in STAGES:
        record = stacked.record(stage)
        base = record["base"]
        assert (base["mode"], base["merged"], base["path"]) == ("stack", False, str(tiny_base))
        assert base["earlier_stages"] == {
            str(earlier): stacked.record(earlier)["adapter_sha256"] for earlier in range(1, stage)
        }
        assert record["adapter"]["trainable"] == stacked.record(1)["adapter"]["trainable"]
    kept = stacked.record(3)["base"]["stacked"]
    assert kept["parameters"] == 2 * stacked.record(1)["adapter"]["trainable"]
    assert kept["folders"] == ["out/lora_stage1", "out/lora_stage2"]
    said = (stacked.folder / "said.txt").read_text()
    assert f"what 2 earlier stages added stays beside the weights, unmerged: {kept['parameters']:,}" in said
    assert "Stacked" in (stacked.stage_dir(3) / "report.html").read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_plain_peft_loads_every_adapter_and_evaluation_saw_what_it_says(
    stacked: Curriculum, tiny_base: Path, stage: int
) -> None:
    """The recorded loss is that of base, earlier adapters and this one, as plain PEFT puts them together."""
    model = PeftModel.from_pretrained(base_of(stacked, tiny_base, stage), stacked.stage_dir(stage))
    rows, chat = read_evaluation_set(stacked.stage_dir(stage)), ChatFormat.load(stacked.stage_dir(stage))
    assert rows is not None
    assert chat is not None
    loss = token_loss(row_losses(model, [(row.input_ids, row.targets()) for row in rows.encoded(chat)]))
    recorded = stacked.record(stage)["evaluation"]["after"]["metrics"]["heldout_loss"]
    assert loss == pytest.approx(recorded, abs=1e-4)
    card = (stacked.stage_dir(stage) / "README.md").read_text()
    assert card.count(".merge_and_unload()  # this one needs stage") == stage - 1


def test_the_export_is_base_and_all_adapters(stacked: Curriculum, tiny_base: Path, tmp_path: Path) -> None:
    stacked.export.done("--stage", 3, "--to", tmp_path / "model")
    exported, reference = load(tmp_path / "model"), base_of(stacked, tiny_base, 4)
    assert distance(exported, reference) < SHARE_OF_EFFECT * distance(load(tiny_base), reference)
    for name, weight in exported.state_dict().items():
        exact = reference.state_dict()[name]
        assert ((weight - exact).abs() <= 2.0**-8 * exact.abs() + 1e-6).all(), name


def test_evaluation_without_training_uses_the_mode_of_then(stacked: Curriculum, tmp_path: Path) -> None:
    """Also where the file says merge: no copy of the base is made for it."""
    curriculum = stacked.copy_to(tmp_path / "scored")
    curriculum.train(3, "--evaluate-only")
    assert not curriculum.merged_base(3).exists()
    old, new = (c.record(3)["evaluation"]["after"]["metrics"] for c in (stacked, curriculum))
    assert new["heldout_loss"] == pytest.approx(old["heldout_loss"], abs=1e-5)
    retention = [c.record(3)["evaluation"]["retention"] for c in (stacked, curriculum)]
    assert [entry["now"] for entry in retention[0]] == [entry["now"] for entry in retention[1]]


def test_a_merged_stage_on_stacked_ones(stacked: Curriculum, tmp_path: Path) -> None:
    """The next stage takes the adapters, whatever mode they were trained in."""
    curriculum = stacked.copy_to(tmp_path / "mixed")
    curriculum.set(1, SFT_MERGE_MODE="stack")
    curriculum.set(2, SFT_MERGE_MODE="stack")
    curriculum.train(3)
    record = curriculum.record(3)
    assert (record["base"]["mode"], record["base"]["merged"]) == ("merge", True)
    assert record["base"]["key"] == stacked.record(3)["base"]["key"]
    assert record["base"]["earlier_stages"] == stacked.record(3)["base"]["earlier_stages"]
    assert json.loads((curriculum.merged_base(3) / "merge.json").read_text())["key"] == record["base"]["key"]
    assert [line.split()[2] for line in curriculum.status()] == ["complete"] * 3
    assert curriculum.train("all").count("up to date, left alone") == 3


def test_a_stacked_stage_answers_without_a_merged_base(stacked: Curriculum, tmp_path: Path) -> None:
    """By its number, by its folder, and with the adapter kept apart; the base's folder stays as it is."""
    copied = stacked.copy_to(tmp_path / "copied")
    question = ("--prompt", "Convert to TOML: a is 1", "--max-new-tokens", 12)
    ways = (("--stage", 3), ("--model", "out/lora_stage3"), ("--model", "out/lora_stage3", "--adapter"))
    before = copied.left_behind()
    answers = {copied.infer.done(*way, *question) for way in ways}
    assert len(answers) == 1
    assert copied.left_behind() == before


@pytest.mark.slow
@needs_compiler
def test_two_sharded_processes_train_stacked_stages(
    stacked: Curriculum, new_curriculum: MakeCurriculum, tmp_path: Path
) -> None:
    """Under ZeRO-2: two rows on each of two processes are four on one. All answers end the same way, so that
    the first evaluation stays the best, and both go back to its checkpoint."""
    runs = {}
    for name, rows, processes in (("one", 4, 1), ("two", 2, 2)):
        curriculum = runs[name] = new_curriculum(tmp_path / name)
        shutil.copytree(stacked.stage_dir(1), curriculum.stage_dir(1))
        curriculum.set(2, SFT_PER_DEVICE_TRAIN_BS=rows, SFT_EPOCHS=3)
        curriculum.set(2, SFT_BEST_METRIC="gen_truncation_rate", SFT_GEN_EVAL_MAX_NEW_TOKENS=1)
        said = curriculum.train(2, *STACK, "--nproc", processes)
        assert "earlier stage added stays beside the weights" in said
        assert not curriculum.merged_base(2).exists()
    curves = [
        [entry["loss"] for entry in run.record(2)["training"]["history"] if "loss" in entry]
        for run in runs.values()
    ]
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    weights = [load_file(run.stage_dir(2) / "adapter_model.safetensors") for run in runs.values()]
    flat = [torch.cat([tensor.float().flatten() for tensor in tensors.values()]) for tensors in weights]
    assert (flat[0] - flat[1]).norm() < 2e-3 * flat[0].norm()
    for run, tensors in zip(runs.values(), weights, strict=True):
        assert run.record(2)["training"]["kept_step"] == 2
        kept = load_file(run.stage_dir(2) / "checkpoint-2/adapter_model.safetensors")
        assert tensors.keys() == kept.keys()
        assert all(torch.equal(tensor, kept[name].to(tensor.dtype)) for name, tensor in tensors.items())

"""QLoRA by the real command: two stages on a base in nf4 with double quantisation, on the CPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from model_distance import load, logits
from peft import PeftModel
from plain_generation import generated
from safetensors.torch import load_file
from terminal import PATIENCE, chat
from tiny_curriculum import Curriculum, make_curriculum, texts
from tiny_model import make_dense_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

FAMILIES = ("Gemma2", pytest.param("Qwen3", marks=pytest.mark.slow))
FP32_NOISE = 1e-4
QLORA: dict[str, object] = {
    "SFT_QUANTIZATION": "nf4-double",
    "SFT_LORA_TARGET_MODULES": "all-linear",
    "SFT_LORA_DROPOUT": 0.1,
    "SFT_OPTIM": "paged_adamw_32bit",
    "SFT_MAX_GRAD_NORM": 0.3,
    "SFT_TENSORBOARD": 1,
    "SFT_GEN_EVAL_BEFORE": 1,
}


def qlora_curriculum(folder: Path, base: Path, store: Path) -> Curriculum:
    curriculum = make_curriculum(folder, base)
    (folder / "mlruns").mkdir()
    shutil.copy(store, folder / "mlruns/mlflow.db")
    template = {"SFT_CHAT_TEMPLATE": "gemma"} if base.name == "Gemma2" else {}
    curriculum.write_rows("general.jsonl", with_system_message(curriculum))
    for stage in (1, 2):
        curriculum.set(stage, **QLORA, **template)
    return curriculum


def with_system_message(curriculum: Curriculum) -> list[dict[str, Any]]:
    """The general rows, each of them with a turn that Gemma does not know."""
    lines = (curriculum.folder / "general.jsonl").read_text().splitlines()
    system = {"role": "system", "content": "Answer plainly."}
    return [row | {"messages": [system, *row["messages"]]} for row in map(json.loads, lines)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dense_model(tmp_path_factory.mktemp("dense") / family, texts(), family)


@pytest.fixture(scope="module")
def qlora(base: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Curriculum:
    """Two stages, trained."""
    curriculum = qlora_curriculum(tmp_path_factory.mktemp(base.name) / "curriculum", base, empty_store)
    (curriculum.folder / "said.txt").write_text(curriculum.train("1-2"), encoding="utf-8")
    return curriculum


def in_nf4(folder: Path) -> PreTrainedModel:
    """As anybody would load it, in the precision that the stages compute in here."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", quantization_config=config, device_map="cpu"
    ).eval()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = (
                False  # else some CPUs evaluate with other weights (bf16 scales)
            )
    return model


def kept_loss(curriculum: Curriculum, stage: int) -> float:
    return float(curriculum.record(stage)["evaluation"]["after"]["metrics"]["heldout_loss"])


def mean_loss(curriculum: Curriculum, model: Any, stage: int) -> float:
    """Per learned token of the stage's evaluation set, by `model` as it is."""
    from lib.data.chat.chat_format import ChatFormat
    from lib.evaluation.evaluation_set import read_evaluation_set

    chat = ChatFormat.load(curriculum.stage_dir(stage))
    rows = read_evaluation_set(curriculum.stage_dir(stage))
    assert chat is not None
    assert rows is not None
    losses = []
    for row in rows.encoded(chat):
        targets = torch.tensor(row.targets()[1:])
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        losses.append(cross_entropy(scores, targets, reduction="none")[targets != -100])
    return torch.cat(losses).mean().item()


def test_what_is_said(qlora: Curriculum, family: str) -> None:
    said = (qlora.folder / "said.txt").read_text()
    attention = "attention eager (this model caps" if family == "Gemma2" else "attention sdpa ("
    assert said.count(attention) == 2
    assert said.count("without a GPU there are no pages to move") == 2  # once a stage
    assert said.count("of the base in four bits") == 2
    merged = "merged into the unquantised weights, loaded as nf4 with double quantisation"
    assert said.count(merged) == 1
    assert "loaded as nf4 with double quantisation" in (qlora.stage_dir(1) / "README.md").read_text()
    (plan,) = qlora.plans(2)
    assert plan["base"]["quantization"] == "nf4-double"
    record = qlora.record(2)
    assert (record["base"]["quantization"], record["base"]["merged"]) == ("nf4-double", True)
    assert record["adapter"]["quantized"] > 0


def test_the_merged_base_is_the_unquantised_one_rounded_once(qlora: Curriculum, base: Path) -> None:
    """W = round(W0 + s·BA), bit for bit, in float64 from the files alone."""
    before = load_file(base / "model.safetensors")
    after = load_file(qlora.merged_base(2) / "model.safetensors")
    adapter = load_file(qlora.stage_dir(1) / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    for name, weight in before.items():
        a = adapter.pop(f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight", None)
        b = adapter.pop(f"base_model.model.{name.removesuffix('.weight')}.lora_B.weight", None)
        assert ("_proj" in name) == (a is not None)
        wanted = weight if a is None else (weight.double() + 8 / 4 * (b.double() @ a.double())).bfloat16()
        assert torch.equal(after[name], wanted), name
        assert a is None or not torch.equal(after[name], weight)
    assert not adapter
    assert "quantization_config" not in json.loads((qlora.merged_base(2) / "config.json").read_text())
    gap = qlora.record(2)["base"]["proof"]["logits"]
    assert gap["mean"] < 0.05 * gap["spread"]  # rounding to bf16; four bits would show


@pytest.mark.parametrize("stage", [1, 2])
def test_the_adapter_on_a_plain_nf4_base_is_the_model_that_was_scored(
    qlora: Curriculum, base: Path, stage: int
) -> None:
    from lib.model.adapter import load_adapter
    from lib.model.base import ComputeChoice, StageBase, load_base

    under = base if stage == 1 else qlora.merged_base(2)
    plain = PeftModel.from_pretrained(in_nf4(under), qlora.stage_dir(stage))
    ours = StageBase(str(under), "", str(under), stage > 1, False, 0.0, quantization="nf4-double")
    loaded = load_adapter(
        load_base(ours, ComputeChoice(torch.float32, "eager", ""), on_gpu=False), qlora.stage_dir(stage)
    ).eval()
    gap = (logits(plain) - logits(loaded)).abs().max()
    assert gap < FP32_NOISE
    assert (logits(in_nf4(under)) - logits(plain)).abs().max() > 100 * FP32_NOISE
    assert (logits(load(under)) - logits(in_nf4(under))).abs().max() > 100 * FP32_NOISE
    # What was scored is this model, not one with the adapter folded into weights and packed anew.
    assert mean_loss(qlora, plain, stage) == pytest.approx(kept_loss(qlora, stage), abs=1e-4)


def test_tensorboard_reads_the_same_numbers(qlora: Curriculum) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(qlora.stage_dir(2) / "tensorboard"))
    events.Reload()
    history = qlora.record(2)["training"]["history"]
    for name in ("loss", "eval_loss", "learning_rate", "grad_norm"):
        written = {event.step: event.value for event in events.Scalars(name)}
        assert written == {e["step"]: pytest.approx(e[name], rel=1e-6) for e in history if name in e}, name
        assert written
    assert [event.step for event in events.Scalars("final/heldout_loss")] == [5]
    assert "settings/text_summary" in events.Tags()["tensors"]


QUESTIONS = ("Write amber as json.", "日本語で答えてください。", "Write {'birch': 7} as toml.")


def answers(curriculum: Curriculum, *arguments: object) -> list[str]:
    """What infer.py answers to the questions."""
    curriculum.write_rows("questions.jsonl", [{"prompt": question} for question in QUESTIONS])
    line = ("--input", "questions.jsonl", "--output", "answers.jsonl", "--force", "--max-new-tokens", 24)
    curriculum.infer.done(*arguments, *line)
    written = (curriculum.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["answer"] for row in written]


def plain_answers(curriculum: Curriculum, model: Any, stage: int) -> list[str]:
    """What transformers generates with `model`, one question at a time."""
    folder = curriculum.stage_dir(stage)
    asked = ([{"role": "user", "content": question}] for question in QUESTIONS)
    return [generated(model, folder, messages) for messages in asked]


def test_a_stage_is_asked_in_four_bits(qlora: Curriculum) -> None:
    """By its number and by its folder the same text as by plain transformers, bitsandbytes and PEFT."""
    merged, folder = qlora.merged_base(2), qlora.stage_dir(2)
    expected = plain_answers(qlora, PeftModel.from_pretrained(in_nf4(merged), folder), 2)
    assert len(set(expected)) > 1
    assert expected != plain_answers(qlora, PeftModel.from_pretrained(load(merged), folder), 2)
    assert answers(qlora, "--stage", 2) == expected
    assert answers(qlora, "--model", "out/lora_stage2", "--adapter") == expected


@pytest.mark.slow
def test_every_way_to_ask_a_stage_in_four_bits(qlora: Curriculum, base: Path, tmp_path: Path) -> None:
    copy = qlora.copy_to(tmp_path / "copy")
    first = PeftModel.from_pretrained(in_nf4(base), qlora.stage_dir(1))
    expected = plain_answers(qlora, first, 1)
    for arguments in (
        ("--stage", 1),
        ("--stage", 1, "--adapter"),
        ("--model", "out/lora_stage1"),
        ("--model", "out/lora_stage1", "--base", base),
    ):
        assert answers(copy, *arguments) == expected, arguments
    copy.set(1, SFT_QUANTIZATION="none")  # the file changes its mind; the stage was trained as it was
    assert answers(copy, "--stage", 1) == expected
    unquantised = plain_answers(qlora, PeftModel.from_pretrained(load(base), qlora.stage_dir(1)), 1)
    assert answers(copy, "--stage", 1, "--quantization", "none") == unquantised != expected
    shutil.rmtree(copy.merged_base(2))
    asking = ("--prompt", QUESTIONS[0], "--max-new-tokens", 24)
    again = copy.infer("--model", "out/lora_stage2", *asking)
    assert "merged into the unquantised weights, loaded as nf4 with double quantisation" in again.stderr
    assert again.stdout == qlora.infer.done("--stage", 2, *asking)


@pytest.mark.slow
def test_a_chat_in_four_bits(qlora: Curriculum) -> None:
    model = PeftModel.from_pretrained(in_nf4(qlora.merged_base(2)), qlora.stage_dir(2))
    expected = plain_answers(qlora, model, 2)[0]
    with chat(qlora, "--stage", 2, "--max-new-tokens", 24) as terminal:
        assert "nothing is added to weights in four bits" in terminal.until("> ")
        terminal.type(QUESTIONS[0] + "\n")
        terminal.until("json.\n")
        answer = terminal.until("\n> ")  # an end token may have come before the limit
        assert answer.partition("\n  (cut off after 24 tokens")[0].rstrip("\n") == expected.rstrip("\n")
        terminal.type("/exit\n")
        assert terminal.process.wait(timeout=PATIENCE) == 0


@pytest.mark.slow
def test_it_is_scored_again_and_exported(qlora: Curriculum, base: Path, tmp_path: Path) -> None:
    """Evaluation alone finds the same; the model that goes elsewhere has unquantised weights and says so."""
    copy = qlora.copy_to(tmp_path / "copy")
    copy.train(2, "--evaluate-only")
    assert kept_loss(copy, 2) == kept_loss(qlora, 2)
    copy.export.done("--stage", 2, "--to", tmp_path / "model")
    exported = load(tmp_path / "model")
    both = load(qlora.merged_base(2))
    both = PeftModel.from_pretrained(both, qlora.stage_dir(2)).merge_and_unload()
    assert (logits(exported) - logits(both)).abs().median() < 0.1 * (
        logits(load(base)) - logits(both)
    ).abs().median()
    card = " ".join((tmp_path / "model/README.md").read_text().split())
    assert "loaded in four bits (stage 1, 2); the weights here are unquantised" in card

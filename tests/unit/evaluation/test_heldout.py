from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat import ChatFormat
from lib.data.rows import Example, to_example
from lib.evaluation.heldout import NOTHING, as_question, evaluate, evaluate_before
from lib.settings import StageSettings, load_stage


@pytest.fixture
def stage(tmp_path: Path, tiny_model: Callable[..., Path]) -> Callable[..., StageSettings]:
    def make(**keys: Any) -> StageSettings:
        values = {
            "SFT_BASE_MODEL": tiny_model("qwen3_moe"),
            "SFT_OUT_LORA_DIR": tmp_path / "lora",
            "SFT_DATASET_ID": "owner/set",
            "SFT_GEN_EVAL_MAX_NEW_TOKENS": 4,
            **keys,
        }
        (tmp_path / "stage1.env").write_text("".join(f"{k}='{v}'\n" for k, v in values.items()))
        return load_stage(tmp_path, 1, environ={})

    return make


@pytest.fixture
def parts(tiny_model: Callable[..., Path]) -> tuple[Any, Any, ChatFormat]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_model("qwen3_moe")
    chat = ChatFormat.load(folder)
    assert chat is not None
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder), chat


def example(index: int, answer: str = "thinking Output: {}", **fields: Any) -> Example:
    return to_example({"prompt": f"question {index}", "completion": answer, **fields}, "rows", index)


def test_scores_samples_and_a_loss_that_does_not_hang_on_the_stages_mask(
    stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]
) -> None:
    examples = [example(i, metadata={"format": "json"}) for i in range(6)] + [
        to_example({"text": "plain"}, "rows", 9)
    ]
    settings = stage(SFT_GEN_EVAL_SAMPLES=4, SFT_MASK_COT=1)
    scored = evaluate(*parts, examples, settings)
    assert scored.metrics["gen_samples"] == 4
    assert {"heldout_loss", "gen_parse_rate", "gen_parse_rate/json"} <= set(scored.metrics)
    assert len(scored.samples) == 4
    assert {sample["reference"] for sample in scored.samples} == {"thinking Output: {}"}
    assert "heldout_loss " in scored.line()
    unmasked = evaluate(*parts, examples, stage(SFT_GEN_EVAL_SAMPLES=4, SFT_MASK_COT=0))
    assert unmasked.metrics["heldout_loss"] == scored.metrics["heldout_loss"]
    other_rows = evaluate(*parts, examples, stage(SFT_GEN_EVAL_SAMPLES=4, SFT_GEN_EVAL_SEED=1))
    assert [s["row"] for s in other_rows.samples] != [s["row"] for s in scored.samples]


def test_nothing_to_evaluate(stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]) -> None:
    assert evaluate(*parts, [], stage()) == NOTHING
    assert evaluate(*parts, [to_example({"text": "plain"}, "rows", 0)], stage()) == NOTHING
    assert evaluate(*parts, [example(0)], stage(SFT_GEN_EVAL_SAMPLES=0)) == NOTHING
    assert NOTHING.line() == "nothing to evaluate"


def test_the_base_is_scored_before_only_when_asked(
    stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]
) -> None:
    assert evaluate_before(*parts, [example(0)], stage()) == NOTHING
    asked = evaluate_before(*parts, [example(0)], stage(SFT_GEN_EVAL_BEFORE=1))
    assert asked.metrics["gen_samples"] == 1


def test_a_question_is_the_prompt_up_to_the_last_answer_cut_from_the_left(
    parts: tuple[Any, Any, ChatFormat],
) -> None:
    chat = parts[2]
    messages = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "last")]
    row = {"messages": [{"role": role, "content": text} for role, text in messages], "task": "json"}
    question = as_question(chat, to_example(row, "rows", 3), longest=1000)
    assert (question.row_id, question.reference, question.labels) == ("rows#3", "last", {"task": "json"})
    text = parts[1].decode(question.prompt_ids)
    assert text.endswith("c<|im_end|>\n<|im_start|>assistant\n")
    cut = as_question(chat, to_example(row, "rows", 3), longest=12)
    assert cut.prompt_ids == question.prompt_ids[-12:]

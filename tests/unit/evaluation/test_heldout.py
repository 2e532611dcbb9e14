import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.reading.rows import Example, to_example
from lib.evaluation.evaluation_set import evaluation_set
from lib.evaluation.heldout import NOTHING, Evaluation, Evaluator
from lib.settings import RunError, StageSettings, load_stage


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


def evaluated(
    parts: tuple[Any, Any, ChatFormat], examples: list[Example], settings: StageSettings
) -> Evaluation:
    model, tokenizer, chat = parts
    rows, _ = evaluation_set(settings, examples, chat)
    return Evaluator(tokenizer, chat, settings)(model, rows)


def test_scores_samples_and_a_loss_that_does_not_hang_on_the_stages_mask(
    stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]
) -> None:
    examples = [example(i, metadata={"format": "json"}) for i in range(6)] + [
        to_example({"text": "plain"}, "rows", 9)
    ]
    scored = evaluated(parts, examples, stage(SFT_GEN_EVAL_SAMPLES=4, SFT_MASK_COT=1))
    assert scored.metrics["gen_samples"] == 4
    assert {"heldout_loss", "gen_parse_rate", "gen_parse_rate/json"} <= set(scored.metrics)
    assert len(scored.samples) == 4
    assert {sample["reference"] for sample in scored.samples} == {"thinking Output: {}"}
    assert set(scored.intervals) <= set(scored.metrics)
    assert set(scored.to_json()) == {"metrics", "intervals", "seconds"}
    unmasked = evaluated(parts, examples, stage(SFT_GEN_EVAL_SAMPLES=4, SFT_MASK_COT=0))
    assert unmasked.metrics["heldout_loss"] == scored.metrics["heldout_loss"]
    other_rows = evaluated(parts, examples, stage(SFT_GEN_EVAL_SAMPLES=4, SFT_GEN_EVAL_SEED=1))
    assert [s["row"] for s in other_rows.samples] != [s["row"] for s in scored.samples]


def test_nothing_to_evaluate(stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]) -> None:
    assert evaluated(parts, [], stage()) == NOTHING
    assert evaluated(parts, [to_example({"text": "plain"}, "rows", 0)], stage()) == NOTHING
    assert evaluated(parts, [example(0)], stage(SFT_GEN_EVAL_SAMPLES=0)) == NOTHING


def test_the_base_is_scored_before_only_when_asked(
    stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]
) -> None:
    model, tokenizer, chat = parts
    for before in (0, 1):
        settings = stage(SFT_GEN_EVAL_BEFORE=before)
        rows, _ = evaluation_set(settings, [example(0)], chat)
        scored = Evaluator(tokenizer, chat, settings).before(model, rows)
        assert scored.metrics.get("gen_samples", 0) == before


def test_while_training_every_second_evaluation_generates_and_leaves_its_file(
    stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]
) -> None:
    model, tokenizer, chat = parts
    settings = stage(SFT_GEN_EVAL_EVERY=2)
    settings.stage_dir.mkdir()
    rows, _ = evaluation_set(settings, [example(0, "日本語 {}", metadata={"format": "json"})], chat)
    generation = Evaluator(tokenizer, chat, settings).while_training(rows)
    metrics = [generation(model, 10 * number, number) for number in (1, 2, 3, 4)]
    assert [bool(found) for found in metrics] == [False, True, False, True]
    files = sorted(path.name for path in settings.stage_dir.iterdir())
    assert files == ["gen_metrics_step20.json", "gen_metrics_step40.json"]
    content = json.loads((settings.stage_dir / files[0]).read_text())
    assert content["step"] == 20
    assert content["metrics"] == metrics[1]
    assert content["samples"][0]["reference"] == "日本語 {}"
    assert "日本語" in (settings.stage_dir / files[0]).read_text()
    never = Evaluator(tokenizer, chat, stage(SFT_GEN_EVAL_EVERY=0)).while_training(rows)
    assert never(model, 10, 1) == {}


def test_a_loss_that_is_no_number_ends_the_run_or_is_named(
    stage: Callable[..., StageSettings],
    parts: tuple[Any, Any, ChatFormat],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, tokenizer, _ = parts
    rows = [example(number) for number in range(3)]
    embedding = model.get_input_embeddings().weight.data
    only_of_row_1 = tokenizer.convert_tokens_to_ids("1")
    kept = embedding[only_of_row_1].clone()
    embedding[only_of_row_1] = math.nan
    said = "evaluation set of stage 1: the heldout_loss is not a number"
    try:
        with pytest.raises(RunError, match=said):
            evaluated(parts, rows, stage())
        scored = evaluated(parts, rows, stage(SFT_ON_NAN="skip"))
    finally:
        embedding[only_of_row_1] = kept
    assert "heldout_loss" not in scored.metrics
    assert scored.metrics["gen_samples"] == 3
    assert scored.notices == (f"[WARNING] {said}; left out, it is no score; rows rows#1",)
    assert scored.notices[0] in capsys.readouterr().out


def test_rows_without_a_token_to_score_have_no_loss(
    stage: Callable[..., StageSettings], parts: tuple[Any, Any, ChatFormat]
) -> None:
    """Not even one that is no number: JSON knows none."""
    scored = evaluated(parts, [example(0)], stage(SFT_MAX_SEQ_LEN=4))
    assert "heldout_loss" not in scored.metrics
    assert scored.metrics["gen_samples"] == 1

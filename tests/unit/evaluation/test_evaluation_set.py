"""The rows that a stage is judged on: chosen, asked, kept for later stages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.reading.rows import Example, to_example
from lib.evaluation.evaluation_set import EVALUATION_SET, as_question, evaluation_set, read_evaluation_set
from lib.settings import InputError, StageSettings, load_stage


@pytest.fixture
def chat(tiny_model: Callable[..., Path]) -> ChatFormat:
    made = ChatFormat.load(tiny_model("qwen3_moe"))
    assert made is not None
    return made


@pytest.fixture
def settings_of(tmp_path: Path, tiny_model: Callable[..., Path]) -> Callable[..., StageSettings]:
    def make(**keys: Any) -> StageSettings:
        values = {
            "SFT_BASE_MODEL": tiny_model("qwen3_moe"),
            "SFT_OUT_LORA_DIR": tmp_path / "lora",
            "SFT_DATASET_ID": "owner/set",
            **keys,
        }
        (tmp_path / "stage1.env").write_text("".join(f"{k}='{v}'\n" for k, v in values.items()))
        return load_stage(tmp_path, 1, environ={})

    return make


def example(index: int, answer: str = "{}", **fields: Any) -> Example:
    return to_example({"prompt": f"question {index}", "completion": answer, **fields}, "rows", index)


def test_a_question_is_the_prompt_up_to_the_last_answer_cut_from_the_left(chat: ChatFormat) -> None:
    messages = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "last")]
    row = {"messages": [{"role": role, "content": text} for role, text in messages], "task": "json"}
    question = as_question(chat, to_example(row, "rows", 3), longest=1000)
    assert (question.row_id, question.reference, question.labels) == ("rows#3", "last", {"task": "json"})
    assert question.prompt == "a\n\nb\n\nc"
    cut = as_question(chat, to_example(row, "rows", 3), longest=12)
    assert cut.prompt_ids == question.prompt_ids[-12:]


def test_the_task_is_guessed_or_said(settings_of: Callable[..., StageSettings], chat: ChatFormat) -> None:
    documents = [example(i, metadata={"format": "json"}) for i in range(3)]
    assert evaluation_set(settings_of(), documents, chat)[0].task == "structured"
    assert evaluation_set(settings_of(), [example(0, "hello")], chat)[0].task == "chat"
    said = settings_of(SFT_GEN_EVAL_TASK="chat", SFT_GEN_EVAL_STYLE="o$")
    rows, _ = evaluation_set(said, documents, chat)
    assert (rows.task, rows.headline) == ("chat", "gen_style_rate")
    nothing, notices = evaluation_set(settings_of(), [], chat)
    assert (nothing.task, nothing.headline, notices) == ("", "", ())


def test_kept_and_read_again_it_is_the_same(
    settings_of: Callable[..., StageSettings], chat: ChatFormat, tmp_path: Path
) -> None:
    rows, _ = evaluation_set(
        settings_of(SFT_OUTPUT_MARKERS="結果:,Output:"),
        [example(i, "結果: {}", metadata={"format": "json", "pack": "x"}) for i in range(4)],
        chat,
    )
    rows.save(tmp_path)
    assert read_evaluation_set(tmp_path) == rows
    assert "結果" in (tmp_path / EVALUATION_SET).read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"examples": [{}]}'])
def test_a_missing_or_damaged_set_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / EVALUATION_SET).write_text(content)
    assert read_evaluation_set(tmp_path) is None


def test_a_best_metric_that_cannot_come_out_is_refused_before_training(
    settings_of: Callable[..., StageSettings], chat: ChatFormat
) -> None:
    documents = [example(i, metadata={"format": "json"}) for i in range(3)]
    rows, _ = evaluation_set(settings_of(SFT_BEST_METRIC="gen_parse_rate/json"), documents, chat)
    assert len(rows.examples) == 3
    for impossible in ("gen_chrf", "gen_parse_rate/toml"):
        with pytest.raises(InputError, match=impossible) as caught:
            evaluation_set(settings_of(SFT_BEST_METRIC=impossible), documents, chat)
        assert "gen_parse_rate/json" in str(caught.value)
    with pytest.raises(InputError, match="no rows to generate"):
        evaluation_set(settings_of(SFT_BEST_METRIC="gen_parse_rate"), [], chat)


def test_references_that_do_not_parse_are_said(
    settings_of: Callable[..., StageSettings], chat: ChatFormat
) -> None:
    documents = [example(i, "{" if i else "{}", metadata={"format": "json"}) for i in range(4)]
    _, notices = evaluation_set(settings_of(), documents, chat)
    assert len(notices) == 1
    assert notices[0].startswith("[WARNING] 75% of the evaluation rows")

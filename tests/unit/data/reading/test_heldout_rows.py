"""chat_of: the chat format of a transformers tokenizer; prepare_heldout: the rows that are scored."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import find_template
from lib.data.chat.model_chat import chat_of
from lib.data.prepare import prepare_heldout, prepare_rows
from lib.data.reading.rows import Message
from lib.settings import InputError

MESSAGES = (Message("user", "question"), Message("assistant", "answer"))


@pytest.fixture
def theirs(curriculum: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(curriculum.base)


def test_chat_of_reads_the_tokenizers_own_template(theirs: Any, curriculum: Any) -> None:
    chat = chat_of(theirs, "")
    plain = [{"role": message.role, "content": message.content} for message in MESSAGES]
    assert chat.render(MESSAGES) == theirs.apply_chat_template(plain, tokenize=False)
    assert chat.template == theirs.chat_template
    from_files = ChatFormat.load(curriculum.base)
    assert from_files is not None
    assert from_files.prompt_ids(MESSAGES[:1]) == chat.prompt_ids(MESSAGES[:1])
    assert from_files.stop_ids == chat.stop_ids


def test_the_tokenizer_takes_on_the_template_that_is_trained(theirs: Any, tmp_path: Path) -> None:
    """So the one saved beside the adapter is the one that was trained on."""
    chat = chat_of(theirs, "alpaca")
    assert theirs.chat_template == chat.template == find_template("alpaca")
    theirs.save_pretrained(tmp_path / "saved")
    again = ChatFormat.load(tmp_path / "saved")
    assert again is not None
    assert again.render(MESSAGES) == chat.render(MESSAGES)


def test_a_tokenizer_without_template_stays_without(theirs: Any) -> None:
    theirs.chat_template = None
    assert chat_of(theirs, "").template is None
    assert theirs.chat_template is None


def test_an_unknown_template_is_refused(theirs: Any) -> None:
    with pytest.raises(InputError, match="SFT_CHAT_TEMPLATE"):
        chat_of(theirs, "no such template")


def test_a_slow_tokenizer_is_refused() -> None:
    class SlowTokenizer:
        chat_template = None

    with pytest.raises(InputError, match="SlowTokenizer"):
        chat_of(SlowTokenizer(), "")  # type: ignore[arg-type]


def write(path: Path, prefix: str, count: int) -> Path:
    rows = [{"prompt": f"{prefix} {i}", "completion": f"{prefix} answer {i}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_validation_rows_are_scored(curriculum: Any) -> None:
    curriculum.stage(1, SFT_VAL_RATIO="0.25")
    stage = curriculum.surveyed(1)
    data = curriculum.prepared(stage)
    heldout = prepare_heldout(stage.settings, data.mixture)
    assert heldout == data.mixture.validation
    assert len(heldout) == 10
    trained = {example.key for example in data.mixture.train}
    assert not trained & {example.key for example in heldout}


def test_another_data_set_is_scored_when_it_is_named(curriculum: Any) -> None:
    other = write(curriculum.root / "other.jsonl", "other", 3)
    curriculum.stage(1, SFT_GEN_EVAL_DATASET_ID=other, SFT_VAL_RATIO=0)
    stage = curriculum.surveyed(1)
    heldout = prepare_heldout(stage.settings, curriculum.prepared(stage).mixture)
    assert [example.messages[-1].content for example in heldout] == [f"other answer {i}" for i in range(3)]
    assert heldout[0].row_id == f"{other}#0"


def test_its_rows_must_fit_a_format_in_strict_stages(curriculum: Any) -> None:
    broken = curriculum.root / "broken.jsonl"
    broken.write_text('{"prompt": "q", "completion": "a"}\n{"body": "x"}\n')
    for strict in (1, 0):
        curriculum.stage(1, SFT_GEN_EVAL_DATASET_ID=broken, SFT_STRICT=strict)
        settings = curriculum.surveyed(1).settings
        chat = ChatFormat.load(curriculum.base)
        assert chat is not None
        data = prepare_rows(settings, chat)
        if strict:
            with pytest.raises(InputError):
                prepare_heldout(settings, data.mixture)
        else:
            assert len(prepare_heldout(settings, data.mixture)) == 1

"""A model and its chat template, loaded as they were trained; what of it is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.inference.assistant import check_system_prompt, load_chat, loaded
from lib.inference.folder_source import folder_source
from lib.inference.wishes import Wishes
from lib.settings import InputError


@pytest.fixture
def bare(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model folder without a chat template."""
    shutil.copytree(tiny_model("qwen3"), tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    return tmp_path / "bare"


def test_a_model_without_a_template_asks_for_one(bare: Path) -> None:
    with pytest.raises(InputError, match="--chat-template: a jinja file, or alpaca, chatml"):
        load_chat(folder_source(bare, ""))
    tokenizer, chat = load_chat(folder_source(bare, "").asked_with("chatml", None))
    assert chat.end_of_turn == "<|im_end|>"
    assert tokenizer.chat_template == chat.template


def test_a_template_that_takes_no_system_prompt(bare: Path, tmp_path: Path) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}x"
    )
    _, chat = load_chat(folder_source(bare, "").asked_with(str(template), None))
    check_system_prompt(chat, "")
    with pytest.raises(InputError, match="no system here") as caught:
        check_system_prompt(chat, "be brief")
    assert caught.value.problems[0].key == "--system"


@pytest.mark.parametrize(("wanted", "limit"), [(None, 256), (100, 100), (511, 511)])
def test_prompt_and_answer_share_the_context(
    tiny_model: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    wanted: int | None,
    limit: int,
) -> None:
    """512 tokens; the habit of 1,024 is too many."""
    source = folder_source(tiny_model("qwen3"), "")
    with loaded(source, *load_chat(source), Wishes(max_new_tokens=wanted)) as assistant:
        assert assistant.decoding.max_new_tokens == limit
        assert assistant.longest_prompt == 512 - limit
    assert ("answers end after 256 tokens" in capsys.readouterr().err) is (wanted is None)


def test_an_answer_as_long_as_the_context_is_refused(tiny_model: Callable[..., Path]) -> None:
    source = folder_source(tiny_model("qwen3"), "")
    with (
        pytest.raises(InputError, match="less than the model's context of 512 tokens"),
        loaded(source, *load_chat(source), Wishes(max_new_tokens=512)),
    ):
        pass

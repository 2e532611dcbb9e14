"""Text as it comes: whole characters only, Japanese at once, and something left of what is interrupted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lib.evaluation.answers import Question
from lib.inference.assistant import Assistant
from lib.inference.streaming import AnswerStreamer, show, stream_answer

PROMPT = [4, 5, 6, 7]


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """One token per byte: every Japanese character is three of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({text: number for number, text in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def test_characters_are_whole_and_kana_do_not_wait_for_a_space(bytewise: PreTrainedTokenizerFast) -> None:
    shown: list[str] = []
    streamer = AnswerStreamer(bytewise, shown.append)
    text = "猫はにゃあ。🐈 と「言う」\nok done"
    tokens = bytewise.encode(text)
    streamer.put(torch.tensor([PROMPT]))
    for token in tokens:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(shown) == text
    assert [piece for piece in shown if piece][:5] == ["猫", "は", "に", "ゃ", "あ"]
    assert "\ufffd" not in "".join(shown)
    assert streamer.tokens == tokens


def test_what_is_shown_is_the_answer(
    assistant: Callable[..., Assistant], capsys: pytest.CaptureFixture[str]
) -> None:
    made = assistant()
    answer, interrupted = stream_answer(made, PROMPT, seed=0)
    assert not interrupted
    assert capsys.readouterr().out == answer.text
    assert [answer.text] == [a.text for a in made.answer([Question("", PROMPT, "", {})], seed=0)]
    assert (answer.tokens, answer.stopped) == (8, False)


def test_an_interrupted_answer_is_what_came_before(
    assistant: Callable[..., Assistant],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = assistant()
    whole, _ = stream_answer(made, PROMPT, seed=0)
    capsys.readouterr()
    put, calls = AnswerStreamer.put, []

    def interrupted_at_the_fourth(self: AnswerStreamer, value: Any) -> None:
        put(self, value)
        calls.append(1)
        if len(calls) == 4:  # the prompt, and three tokens
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerStreamer, "put", interrupted_at_the_fourth)
    answer, interrupted = stream_answer(made, PROMPT, seed=0)
    assert interrupted
    assert (answer.tokens, answer.stopped) == (3, False)
    assert whole.text.startswith(answer.text)
    assert capsys.readouterr().out == answer.text


@pytest.mark.parametrize(
    ("is_terminal", "written"), [(True, "\\x1b]0;x\\x07 にゃ\t\n"), (False, "\x1b]0;x\x07 にゃ\t\n")]
)
def test_a_terminal_gets_no_control_characters(
    is_terminal: bool, written: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    show("\x1b]0;x\x07 にゃ\t\n")
    assert capsys.readouterr().out == written

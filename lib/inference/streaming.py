"""An answer that is shown while it is generated."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerBase, TextStreamer

from lib.evaluation.answers import Answer, Question
from lib.evaluation.decoding import as_answer
from lib.inference.assistant import Assistant

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but line feed and tab."""


class AnswerStreamer(TextStreamer):
    """transformers' own, which holds back characters whose bytes are not all there yet. It keeps the tokens,
    so that something is left of an answer that is interrupted."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write = write
        self.tokens: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        if not self.next_tokens_are_prompt:
            self.tokens += value.flatten().tolist()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.write(text)

    def _is_chinese_char(self, cp: int) -> bool:
        """Text that ends so is shown at once. transformers waits for a space after kana, where Japanese has
        none."""
        return unicodedata.east_asian_width(chr(cp)) in {"W", "F"}


def show(text: str) -> None:
    """On stdout, at once. A terminal obeys control characters, which a model can be taught to write."""
    sys.stdout.write(_CONTROL.sub(_as_code, text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _as_code(match: re.Match[str]) -> str:
    return f"\\x{ord(match.group()):02x}"


def stream_answer(assistant: Assistant, prompt_ids: list[int], *, seed: int) -> tuple[Answer, bool]:
    """The answer, which has been shown by then, and whether Ctrl-C ended it."""
    question = Question("", prompt_ids, "", {})
    streamer = AnswerStreamer(assistant.tokenizer, show)
    try:
        return assistant.answer([question], seed=seed, streamer=streamer)[0], False
    except KeyboardInterrupt:
        streamer.end()
        ends = assistant.decoding.end_token_ids
        return as_answer(question, streamer.tokens, assistant.tokenizer, ends), True

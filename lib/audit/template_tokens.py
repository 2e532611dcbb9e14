"""What chat templates write around messages, and messages therefore must not hold."""

import re
from collections.abc import Iterable

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import (
    TEMPLATE_ERRORS,
    bundled_templates,
    compile_template,
    find_template,
    render,
)
from lib.data.reading.rows import Message

_TOKEN = re.compile(r"<\|?\w+\|?>")
_HEADER = re.compile(r"^#+ .+:$", re.MULTILINE)
_PROBE = (Message("system", "0"), Message("user", "1"), Message("assistant", "2"))


def token_pattern(chat: ChatFormat | None) -> re.Pattern[str]:
    """Matches the special tokens of the tokenizer, the tokens that any bundled template writes, and the
    headers of the template in use at the beginning of a line. Without a tokenizer, the second alone."""
    tokens = {token for name in bundled_templates() for token in _TOKEN.findall(_rendered(name))}
    headers: set[str] = set()
    if chat is not None:
        tokens |= chat.control_tokens
        try:
            own = chat.render(_PROBE) if chat.template else ""
        except TEMPLATE_ERRORS:  # it takes other conversations only
            own = ""
        headers = {*_HEADER.findall(own)}
    return re.compile(
        "|".join([*_longest_first(tokens), *(rf"^{text}\s*$" for text in _longest_first(headers))]),
        re.MULTILINE,
    )


def _longest_first(texts: Iterable[str]) -> list[str]:
    return [re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text))]


def _rendered(name: str) -> str:
    plain = [{"role": message.role, "content": message.content} for message in _PROBE]
    return render(compile_template(find_template(name)), plain, {}, add_generation_prompt=True)

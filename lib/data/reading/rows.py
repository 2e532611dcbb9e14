"""Rows of any known format into conversations.

Formats: `messages`, ShareGPT `conversations`, `prompt`/`completion`,
`instruction`/`input`/`output`/`history`, and plain `text`. The first that a row's columns allow is taken, in
this order.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib.data.reading.broken_rows import SKIPPED, BrokenRow
from lib.data.reading.extraction_record import answer_is_negative
from lib.data.reading.labels import Label, labels_of
from lib.settings.errors import InputError

_ROLES = {
    **{name: name for name in ("system", "developer", "user", "assistant", "tool", "function", "ipython")},
    **dict.fromkeys(("agent", "gpt", "bot", "model", "chatgpt"), "assistant"),
    "human": "user",
    "observation": "tool",
}
MEND_OR_SKIP = f"mend or remove the row{SKIPPED}"
# Parts of a message that would change what is learned if they were dropped silently.
_UNTRAINED_FIELDS = ("tool_calls", "function_call", "reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class Message:
    role: str
    """system, developer, user, assistant, tool, function or ipython."""
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One usable row: a conversation that ends with an assistant's answer (an empty one where a question has
    none), or plain text."""

    messages: tuple[Message, ...]
    text: str | None
    """Plain text to continue, without any conversation; `messages` is empty then."""
    labels: tuple[Label, ...]
    key: str
    """sha256 of the content: rows with the same key are the same row, wherever they stand."""
    source: str
    index: int
    """Position in its source, from 0."""
    names_nobody: bool | None = None
    """Whether the answer is an extraction record without an offender; None where it is no such record."""

    @property
    def row_id(self) -> str:
        """`source#index`."""
        return f"{self.source}#{self.index}"

    def renamed(self, source: str) -> "Example":
        return replace(self, source=source)

    @property
    def characters(self) -> int:
        return len(self.text or "") + sum(len(message.content) for message in self.messages)


class RowError(InputError):
    """A row that cannot be used; its problem names source, index and columns."""


def to_example(row: Mapping[str, Any], source: str, index: int, *, answered: bool = True) -> Example:
    """One row as a conversation or text; with `answered` false as a question: it may lack the answer, which
    is then an empty last message, and plain text will not do. Raises RowError naming the row."""
    if isinstance(row, BrokenRow):
        raise RowError([row.problem])
    try:
        messages, text = _content(row) if answered else (_question(row), None)
        labels = labels_of(row)
        _check_characters(messages, text, labels)
    except (ValueError, RecursionError) as error:
        reason = "content that is not nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RowError.of(
            where=f"{source}#{index}",
            key="row",
            value=f"columns {', '.join(map(str, row)) or '(none)'}",
            expected=reason,
            remedy=MEND_OR_SKIP if answered else "mend or remove the row",
        ) from error
    names_nobody = answer_is_negative(messages[-1].content) if messages else None
    return Example(messages, text, labels, content_key(messages, text), source, index, names_nobody)


def content_key(messages: Sequence[Message], text: str | None) -> str:
    """sha256 of the content without surrounding white space and differences in line ends."""

    def normal(content: str) -> str:
        return content.replace("\r\n", "\n").strip()

    content: Any = [[message.role, normal(message.content)] for message in messages] or normal(text or "")
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _content(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], str | None]:
    for columns, read in _FORMATS:
        if all(row.get(column) is not None for column in columns):
            return _checked(read(row)), None
    if isinstance(row.get("text"), str) and row["text"].strip():
        return (), row["text"]
    raise ValueError(
        "messages, conversations, prompt + completion, instruction + output, or text that is not empty"
    )


def _question(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """In the format that a row with its answer would be read in."""
    whole = [read for columns, read in _FORMATS if all(row.get(column) is not None for column in columns)]
    asking = [read for (column, *_), read in _FORMATS if row.get(column) is not None]
    if not asking:
        raise ValueError("messages, conversations, prompt, or instruction")
    messages = (whole or asking)[0](row)
    if not messages or messages[-1].role != "assistant":
        messages.append(Message("assistant", ""))
    if not any(message.content.strip() for message in messages[:-1]):
        raise ValueError("a question that is not empty")
    return tuple(messages)


def _checked(messages: list[Message]) -> tuple[Message, ...]:
    if not messages:
        raise ValueError("a conversation with at least one message")
    if messages[-1].role != "assistant":
        raise ValueError(f"a conversation that ends with an assistant's message, not {messages[-1].role}'s")
    if not any(message.role == "assistant" and message.content.strip() for message in messages):
        raise ValueError("an assistant's answer that is not empty")
    return tuple(messages)


def _check_characters(messages: Sequence[Message], text: str | None, labels: Sequence[Label]) -> None:
    parts = (text or "", *(message.content for message in messages), *(label.value for label in labels))
    try:
        "".join(parts).encode()
    except UnicodeEncodeError as error:
        raise ValueError("text in valid Unicode, without half of a surrogate pair") from error


def _from_messages(row: Mapping[str, Any]) -> list[Message]:
    return _messages(row["messages"], "messages")


def _from_conversations(row: Mapping[str, Any]) -> list[Message]:
    system = _optional_text(row, "system")
    messages = _messages(row["conversations"], "conversations")
    if system and messages and messages[0].role != "system":
        return [Message("system", system), *messages]
    return messages


def _from_prompt_and_completion(row: Mapping[str, Any]) -> list[Message]:
    def side(column: str, role: str) -> list[Message]:
        content = row.get(column)
        if content is None:
            return []
        return [Message(role, content)] if isinstance(content, str) else _messages(content, column)

    return [*side("prompt", "user"), *side("completion", "assistant")]


def _from_instruction(row: Mapping[str, Any]) -> list[Message]:
    system, extra = _optional_text(row, "system"), _optional_text(row, "input")
    messages = [Message("system", system)] if system else []
    history = row.get("history") or ()
    if not isinstance(history, list | tuple):
        raise ValueError("history as a list of [question, answer] pairs")
    for turn in history:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise ValueError("history as a list of [question, answer] pairs")
        messages += [
            Message("user", _text(turn[0], "history")),
            Message("assistant", _text(turn[1], "history")),
        ]
    instruction = _text(row["instruction"], "instruction")
    question = "\n\n".join(part for part in (instruction, extra) if part)
    messages.append(Message("user", question))
    output = row.get("output")
    if output is None:
        return messages
    answer = _json(output, "output") if isinstance(output, dict | list) else _text(output, "output")
    return [*messages, Message("assistant", answer)]


_FORMATS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], list[Message]]], ...] = (
    (("messages",), _from_messages),
    (("conversations",), _from_conversations),
    (("prompt", "completion"), _from_prompt_and_completion),
    (("instruction", "output"), _from_instruction),
)


def _messages(content: Any, column: str) -> list[Message]:
    if isinstance(content, str):  # CSV files carry conversations as JSON text
        content = json.loads(content)
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise ValueError(f"{column} as a list of messages")
    return [_message(item, f"{column}[{number}]") for number, item in enumerate(content)]


def _message(item: Any, place: str) -> Message:
    """A message of either key pair: role/content or ShareGPT's from/value."""
    if not isinstance(item, Mapping):
        raise ValueError(f"{place} as an object with role and content, or from and value")
    untrained = [field for field in _UNTRAINED_FIELDS if item.get(field)]
    if untrained:
        raise ValueError(f"{place} without {untrained[0]}, which is not trained: write it into the content")
    role = item["from"] if item.get("role") is None and "from" in item else item.get("role")
    content = item["value"] if item.get("content") is None and "value" in item else item.get("content")
    if not isinstance(role, str) or role.strip().lower() not in _ROLES:
        raise ValueError(f"{place} with a role among {', '.join(_ROLES)}; found {role!r}")
    return Message(_ROLES[role.strip().lower()], _text(content, f"the content of {place}"))


def _text(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, int | float):  # a number in a column of answers
        return json.dumps(content)
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    raise ValueError(f'{place} as text, or as a list of {{"type": "text", "text": …}} parts')


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
    )


def _optional_text(row: Mapping[str, Any], column: str) -> str:
    content = row.get(column)
    if content is None:
        return ""
    text = _json(content, column) if isinstance(content, dict | list) else _text(content, column)
    return text if text.strip() else ""


def _json(content: Any, column: str) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)
    except TypeError as error:  # parquet has bytes, dates and decimals
        raise ValueError(f"{column} as text, or as values that JSON has ({error})") from error

"""Where the assistant's answers stand in a rendered conversation, in characters."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.data.chat.chat_template import TEMPLATE_ERRORS
from lib.data.reading.rows import Message

Render = Callable[[Sequence[Message], bool], str]
"""(messages, add_generation_prompt) → text."""


@dataclass(frozen=True)
class TemplateFacts:
    """What holds for every conversation that a template renders."""

    end_tokens: re.Pattern[str]
    """Matches the tokens that can close a turn."""
    writes_generation_prompt: bool
    """Whether add_generation_prompt adds the header of an answer."""
    header: str = ""
    """What add_generation_prompt adds; "" where it does not just add something."""
    tail: str = ""
    """What follows the last answer, its end-of-turn token first or after white space; "" without one."""

    @classmethod
    def of(cls, end_tokens: re.Pattern[str], probe: Sequence[Message], render: Render) -> "TemplateFacts":
        """As the template shows them on a question with its answer."""
        try:
            asked, prompt, whole = render(probe[:1], False), render(probe[:1], True), render(probe, False)
        except TEMPLATE_ERRORS:  # unusual demands; the rows themselves will show whether it works
            return cls(end_tokens, True)
        header = prompt.removeprefix(asked) if prompt.startswith(asked) else ""
        _, found, tail = whole.rpartition(header + probe[1].content)
        token = end_tokens.search(tail)
        closed = bool(found and token and not tail[: token.start()].strip())
        return cls(end_tokens, prompt != asked, header, tail if closed else "")


@dataclass(frozen=True)
class Turn:
    """One answer: text[start:closing] is what the model says, text[closing:end] its end-of-turn token."""

    start: int
    closing: int
    end: int
    """Equals `closing` where the template writes no such token."""


def find_turns(
    messages: Sequence[Message], text: str, render: Render, facts: TemplateFacts, *, last_only: bool
) -> list[Turn]:
    """The assistant's turns of a conversation rendered as `text`, in order; only the last one on request.

    Raises ValueError when an answer cannot be found in the text.
    """
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    wanted = answers[-1:] if last_only else answers
    framed = _framed([messages[i].content for i in answers], text, facts)
    if framed is not None:
        return framed[-len(wanted) :]
    return [_turn(messages, i, text, render, facts) for i in wanted]


def _framed(answers: Sequence[str], text: str, facts: TemplateFacts) -> list[Turn] | None:
    """The turns of a conversation that ends with an answer, without rendering any of it again: each answer
    stands word for word between the header and the tail, and a header stands nowhere else. None where the
    template writes otherwise, or where a row's content has the header in it."""
    header, tail = facts.header, facts.tail
    if not (header and tail) or text.count(header) != len(answers):
        return None
    token = facts.end_tokens.search(tail)
    assert token is not None, "a tail has an end-of-turn token"
    turns, end = [], 0
    for answer in answers:
        start = text.index(header, end) + len(header)
        closing = start + len(answer)
        end = closing + len(tail)
        if text[start:closing] != answer or text[closing:end] != tail:
            return None
        turns.append(Turn(start, closing + token.start(), closing + token.end()))
    return turns if end == len(text) else None


def _turn(messages: Sequence[Message], i: int, text: str, render: Render, facts: TemplateFacts) -> Turn:
    """Most templates write a conversation's beginning the same way, whatever follows: the answer then starts
    after the generation prompt. Those that rewrite history (thinking templates) are asked by a stand-in."""
    limit = _limit(messages, i, text, render)
    start = _after_prompt(messages, i, text, render, facts)
    closing = None if start is None else _end_of_content(messages[i].content, text, start, limit or len(text))
    if start is None or closing is None:
        found = _by_stand_in(messages, i, text, render)
        if found is None:
            raise ValueError(
                f"an answer that the chat template shows: message {i} is not in the rendered text"
            )
        start, closing = (found[0] if start is None else start), found[1]
    token = facts.end_tokens.search(text, closing, limit or len(text))
    if token is not None and (limit is not None or not text[closing : token.start()].strip()):
        return Turn(start, token.start(), token.end())
    end = closing if limit is None else start + len(text[start:limit].rstrip())
    return Turn(start, end, end)


def _after_prompt(
    messages: Sequence[Message], i: int, text: str, render: Render, facts: TemplateFacts
) -> int | None:
    if i == 0 or not facts.writes_generation_prompt:
        return None
    return _length_of_beginning(messages[:i], True, text, render)


def _limit(messages: Sequence[Message], i: int, text: str, render: Render) -> int | None:
    """Where the next message begins; None when the template tells only with the whole conversation."""
    if i == len(messages) - 1:
        return len(text)
    return _length_of_beginning(messages[: i + 1], False, text, render)


def _length_of_beginning(messages: Sequence[Message], prompt: bool, text: str, render: Render) -> int | None:
    """Length of the first messages rendered alone; None where the whole does not begin with that."""
    try:
        beginning = render(messages, prompt)
    except TEMPLATE_ERRORS:  # the template may take whole conversations only
        return None
    return len(beginning) if text.startswith(beginning) else None


def _end_of_content(content: str, text: str, start: int, limit: int) -> int | None:
    for form in (content, content.strip()):  # many templates trim
        found = text.find(form, start, limit)
        if found >= 0:
            return found + len(form)
    return None


def _by_stand_in(messages: Sequence[Message], i: int, text: str, render: Render) -> tuple[int, int] | None:
    """Start and end of an answer: where a stand-in for it appears, if nothing else changes with it."""
    marked = [*messages[:i], Message("assistant", _STAND_IN), *messages[i + 1 :]]
    before, found, after = render(marked, False).partition(_STAND_IN)
    fits = bool(found) and len(before) + len(after) <= len(text)
    if not fits or not text.startswith(before) or not text.endswith(after):
        return None
    return len(before), len(text) - len(after)


# Private-use characters: no data and no template contains them, and nothing trims them.
_STAND_IN = "\ue000\uf8ff\ue000"

"""What is wrong with a row by itself: an answer that is empty, cut off or not in its declared format, or
content that writes over the chat template."""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from lib.audit.excerpts import around, beginning, ending, faulty_line
from lib.data.reading.rows import Example
from lib.evaluation.answers import FENCE, THINKING, THOUGHT, after_marker, answer_part
from lib.evaluation.formats import Unparsable, read_document
from lib.evaluation.structured import format_of


class Fault(NamedTuple):
    """What is wrong with a row, in words, and the text that shows it."""

    reason: str
    text: str


ContentCheck = Callable[[Example], Fault | None]
# What the parsers say when a document ends too early.
CUT = re.compile(
    r"no element found|unclosed token|^(?!Cannot).*end of document|unexpected end of|end of stream"
    r"|but got '<stream end>'"
)
OPEN_ENDED = re.compile(r"[、，,（(「『《\[{]$")
"""What no sentence ends with."""
JSON_BEGINS = re.compile(r"[\[{]\s*[\"\[{]")
_FENCE_LINE = re.compile(r"\s*(`{3,})([^`]*)")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}"]', re.DOTALL)


def content_checks(markers: tuple[str, ...], tokens: re.Pattern[str]) -> dict[str, ContentCheck]:
    """The checks by name. `markers` are SFT_OUTPUT_MARKERS, `tokens` as from `token_pattern`."""
    return {
        "empty": lambda row: _empty(row, markers),
        "truncated": lambda row: _truncated(row, markers),
        "format": lambda row: _unparsable(row, markers),
        "template_token": lambda row: _written_over(row, tokens),
    }


def declared_format(row: Example) -> str | None:
    """What the row's labels say that its answer is, by the rules of the evaluation."""
    return format_of({label.field: label.value for label in row.labels})


def _empty(row: Example, markers: Sequence[str]) -> Fault | None:
    if any(message.role == "assistant" and not message.content.strip() for message in row.messages):
        return Fault("an assistant's message is empty", beginning(row))
    answer = row.messages[-1].content if row.messages else ""
    said = after_marker(answer, markers).split("\n")
    if row.messages and not _open_thought(answer) and not any(line.strip(" \t\r`") for line in said):
        return Fault("nothing follows the thoughts or the output marker", ending(answer))
    return None


def _truncated(row: Example, markers: tuple[str, ...]) -> Fault | None:
    if not row.messages:
        return None
    answer = row.messages[-1].content
    document, format_name = answer_part(answer, markers), declared_format(row)
    reason = ""
    if _open_thought(answer):
        reason = f"{THINKING} is never closed"
    elif _open_fence(answer):
        reason = f"a code fence ({FENCE}) is never closed"
    elif format_name is not None:
        fault = _fault(answer, format_name, markers)
        if fault and (CUT.search(fault) or (format_name == "json" and _left_open(document))):
            reason = f"{format_name.upper()} that ends too early: {fault}"
    elif OPEN_ENDED.search(document):
        reason = f"the answer ends with {document[-1]}"
    elif JSON_BEGINS.match(document) and _left_open(document):
        reason = "JSON that is never closed"
    return Fault(reason, ending(answer)) if reason else None


def _unparsable(row: Example, markers: tuple[str, ...]) -> Fault | None:
    format_name = declared_format(row)
    if format_name is None or not row.messages:
        return None
    answer = row.messages[-1].content
    fault = _fault(answer, format_name, markers)
    if not fault:
        return None
    return Fault(f"no {format_name.upper()}: {fault}", faulty_line(answer_part(answer, markers), fault))


@lru_cache(maxsize=1)  # two checks ask about the same row, one after the other
def _fault(answer: str, format_name: str, markers: tuple[str, ...]) -> str:
    """Why the answer is no document of its format. What follows the last marker is tried first, as it is
    judged; a marker may be a word of the document, too, so that all that follows the first one and the whole
    answer are tried as well."""
    first = min((answer.find(marker) + len(marker) for marker in markers if marker in answer), default=0)
    parts = (answer_part(answer, markers), answer_part(answer[first:], ()), answer_part(answer, ()))
    faults = [_reason(part, format_name) for part in dict.fromkeys(parts)]
    return "" if "" in faults else faults[0]


def _reason(document: str, format_name: str) -> str:
    try:
        read_document(document, format_name)
    except Unparsable as error:
        return error.reason
    return ""


def _open_thought(answer: str) -> bool:
    return answer.rfind(THINKING) > answer.rfind(THOUGHT)


def _open_fence(answer: str) -> bool:
    """Whether a code fence is never closed by as many backticks or more, alone on their line."""
    opened = ""
    for line in answer.split("\n"):
        fence = _FENCE_LINE.fullmatch(line)
        if fence and not opened:
            opened = fence[1]
        elif fence and fence[1].startswith(opened) and not fence[2].strip():
            opened = ""
    return bool(opened)


def _left_open(document: str) -> bool:
    """Whether JSON's brackets, or a string, are open when the text ends."""
    depth = 0
    for found in _BRACKETS.findall(document):
        if found == '"':
            return True
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found, 0)
    return depth > 0


def _written_over(row: Example, tokens: re.Pattern[str]) -> Fault | None:
    for content in (*(message.content for message in row.messages), row.text or ""):
        found = tokens.search(content)
        if found:
            name = json.dumps(found.group().strip(), ensure_ascii=False)
            return Fault(f"{name} inside the content", around(content, found.start(), found.end()))
    return None

"""Short pieces of rows that show what was found."""

import re

from lib.data.reading.rows import Example

SHOWN = 100
"""Characters."""
_AROUND = 20
_LINE = re.compile(r"\bline (\d+)\b")


def beginning(row: Example) -> str:
    """Of the last question and of its answer."""
    if row.text is not None:
        return _cut(row.text)
    asked = row.messages[-2].content if len(row.messages) > 1 else ""
    return f"{_cut(asked)} → {_cut(row.messages[-1].content)}"


def ending(text: str) -> str:
    line = _one_line(text)
    return line if len(line) <= SHOWN else f"…{line[-SHOWN:]}"


def around(text: str, start: int, end: int) -> str:
    """The piece from `start` to `end` with what stands beside it."""
    before, after = text[max(start - _AROUND, 0) : start], text[end : end + _AROUND]
    return _one_line(f"{before}{text[start:end]}{after}")


def faulty_line(document: str, reason: str) -> str:
    """The line that a parser's reason names, else the beginning."""
    named = _LINE.search(reason)
    lines = document.split("\n")
    if named and 0 < int(named[1]) <= len(lines) and len(lines) > 1:
        return _cut(lines[int(named[1]) - 1])
    return _cut(document)


def difference(row: Example, other: Example) -> str:
    """Where two rows differ first and last: this row's piece, then the other's."""
    one, two = _whole(row), _whole(other)
    start = next(
        (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )
    end = 0
    while end < min(len(one), len(two)) - start and one[-1 - end] == two[-1 - end]:
        end += 1
    pieces = (around(text, start, min(len(text) - end, start + SHOWN)) for text in (one, two))
    return " | ".join(pieces)


def _whole(row: Example) -> str:
    return _one_line("\n".join([*(message.content for message in row.messages), row.text or ""]))


def _cut(text: str) -> str:
    line = _one_line(text[: 4 * SHOWN])
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())

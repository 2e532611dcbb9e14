"""The rows of `--input` as questions. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lib.data.chat.chat_template import TEMPLATE_ERRORS
from lib.data.reading.broken_rows import SKIPPED, Row
from lib.data.reading.data_files import EXTENSIONS
from lib.data.reading.first_problems import FirstProblems
from lib.data.reading.rows import Example, Message
from lib.data.reading.sources import NormalizedRows, Source, load_source
from lib.data.reading.usable_rows import read_examples
from lib.evaluation.answers import Question
from lib.evaluation.evaluation_set import as_question
from lib.settings import InputError, Problem, Problems

if TYPE_CHECKING:
    from lib.data.chat.chat_format import ChatFormat

# What an output row has besides the columns of its input row.
ADDED_COLUMNS = ("answer", "tokens", "stopped")


@dataclass(frozen=True)
class InputRows:
    """`examples` are `rows` as conversations; the last message is the reference, or empty without one."""

    path: Path
    rows: Sequence[Row]
    examples: Sequence[Example]
    sha256: str

    def __len__(self) -> int:
        return len(self.rows)

    def question(self, index: int, chat: ChatFormat) -> Question:
        """Row `index` with its whole prompt, however long."""
        return as_question(chat, self.examples[index])

    @cached_property
    def referenced(self) -> tuple[int, ...]:
        """The rows with a reference."""
        return tuple(i for i, example in enumerate(self.examples) if example.messages[-1].content.strip())


def read_input(path: Path, system: str = "") -> InputRows:
    """All rows of a data file; `system` is the system prompt of those without one.

    Raises InputError with every kind of row that cannot be answered or written again.
    """
    if not path.is_file() or path.suffix.lower() not in EXTENSIONS:
        raise InputError.of(
            where="command line",
            key="--input",
            value=str(path),
            expected=f"a file that exists and ends in {', '.join(EXTENSIONS)}",
            remedy="check the path",
        )
    loaded = load_source(str(path), "train")
    assert loaded is not None, "a file is on this machine"
    rows, digest = loaded
    assert not isinstance(rows, NormalizedRows), "nothing keeps them on disk"
    problems = Problems()
    problems.extend(_unwritable(rows, path))
    try:
        source = Source(str(path), str(path), "train", None, rows, digest)
        table, _ = read_examples(source, strict=True, answered=False)
    except InputError as error:
        # Training may skip a row; an answer is owed to every one.
        problems.extend(
            replace(problem, remedy=problem.remedy.removesuffix(SKIPPED)) for problem in error.problems
        )
    problems.raise_if_any()
    return InputRows(path, rows, [_under(system, example) for example in table.examples], digest)


def _under(system: str, example: Example) -> Example:
    if not system or example.messages[0].role in {"system", "developer"}:
        return example
    return replace(example, messages=(Message("system", system), *example.messages))


def _unwritable(rows: Sequence[Row], path: Path) -> Iterator[Problem]:
    found = FirstProblems()
    for index, row in enumerate(rows):
        where = f"{path}#{index}"
        taken = [column for column in ADDED_COLUMNS if column in row]
        if taken:
            expected = f"no column of this name: the output adds {', '.join(ADDED_COLUMNS)}"
            found.add(Problem(where, "row", f"column {', '.join(taken)}", expected, "rename the column"))
        try:
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            expected = "text in valid Unicode, without half of a surrogate pair"
            found.add(Problem(where, "row", "", expected, "mend or remove the row"))
    yield from found.all_shown(str(path), "rows that cannot be written again", len(rows))


def check_rows(rows: InputRows, chat: ChatFormat) -> None:
    """Raises InputError with the rows that the chat template refuses."""
    refused = FirstProblems()
    for example in rows.examples:
        try:
            chat.render(example.messages[:-1], True)
        except TEMPLATE_ERRORS as error:
            roles = " → ".join(message.role for message in example.messages[:-1])
            remedy = "mend the row, or choose another --chat-template"
            refused.add(Problem(example.row_id, "chat template", roles, str(error), remedy))
    problems = refused.all_shown(str(rows.path), "rows that the chat template refuses", len(rows))
    if problems:
        raise InputError(problems)

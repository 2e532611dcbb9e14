"""The rows of a loaded data set that can be used, and what is said of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from lib.data.reading.first_problems import FirstProblems
from lib.data.reading.rows import Example, RowError, to_example
from lib.data.reading.sources import NormalizedRows, Source
from lib.settings.errors import InputError


@dataclass(frozen=True)
class SourceRows:
    """The usable rows of one source."""

    name: str
    weight: float | None
    examples: Sequence[Example]
    skipped: int = 0
    """Rows that fit no format and were left out (lenient mode)."""


def read_examples(
    source: Source, *, strict: bool, answered: bool = True
) -> tuple[SourceRows, tuple[str, ...]]:
    """Every usable row of a source, and notices. `answered` as in `to_example`.

    Rows that fit no format: strict, InputError with the first five and the total; lenient, an [ERROR] notice,
    and they are skipped and counted. A source without any usable row is always an InputError.
    """
    examples, unfit = _read(source, answered)
    problems = unfit.all_shown(source.name, "rows that cannot be used", len(source.rows))
    if unfit.total and (strict or not examples):
        raise InputError(problems)
    notices = []
    if unfit.total:
        first = problems[0]
        notices.append(
            f"[ERROR] {unfit.total} of {len(source.rows)} rows of {source.name} are unusable and skipped; "
            f"the first is {first.where}: {first.value}, expected {first.expected}"
        )
    return SourceRows(source.name, source.weight, tuple(examples), unfit.total), tuple(notices)


def _read(source: Source, answered: bool) -> tuple[Sequence[Example], FirstProblems]:
    if isinstance(source.rows, NormalizedRows):
        return source.rows.examples(source.name), source.rows.problems(source.name)
    examples: list[Example] = []
    unfit = FirstProblems()
    for index, row in enumerate(source.rows):
        try:
            examples.append(to_example(row, source.name, index, answered=answered))
        except RowError as error:
            unfit.extend(error.problems)
    return examples, unfit

"""What may happen to the rows of a stage between reading and mixing. lib/audit does it; this is what both
sides know of each other."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lib.data.chat.chat_format import ChatFormat
from lib.data.reading.usable_rows import SourceRows
from lib.settings.schema import StageSettings
from lib.settings.schema.audit import CHECKS


@dataclass(frozen=True)
class Finding:
    """One row that should not be trained on."""

    check: str
    """Which of SFT_AUDIT_CHECKS found it; a row is found once, by the first that does."""
    source: str
    index: int
    """Position in its source, from 0."""
    reason: str
    """In words, for people."""
    excerpt: str = ""
    """The part of the row that shows it."""
    other: str = ""
    """Row id of the row that it repeats."""
    similarity: float | None = None
    """Jaccard similarity with that row."""

    @property
    def row_id(self) -> str:
        return f"{self.source}#{self.index}"


@dataclass(frozen=True)
class AuditLine:
    """What one check found in one data set."""

    source: str
    check: str
    found: int
    removed: int


@dataclass(frozen=True)
class Cleaned:
    """The rows that go on to be mixed, and what was found among all of them."""

    tables: tuple[SourceRows, ...]
    findings: tuple[Finding, ...] = ()
    notices: tuple[str, ...] = ()


Clean = Callable[[StageSettings, ChatFormat | None, Sequence[SourceRows], bool], Cleaned]
"""(settings, chat, tables, allow_download) → Cleaned. The tables are those of the stage's own mix, in its
order; `chat` is None where the tokenizer is not on this machine."""


def keep_all(
    settings: StageSettings, chat: ChatFormat | None, tables: Sequence[SourceRows], allow_download: bool
) -> Cleaned:
    """Nothing is looked at, every row stays."""
    return Cleaned(tuple(tables))


def without_rows(removed: frozenset[str]) -> Clean:
    """What takes these rows out again, by row id, as a finished stage's own audit did."""

    def clean(
        settings: StageSettings,
        chat: ChatFormat | None,
        tables: Sequence[SourceRows],
        allow_download: bool,
    ) -> Cleaned:
        return Cleaned(tuple(drop_rows(table, removed) for table in tables))

    return clean


def drop_rows(table: SourceRows, removed: frozenset[str]) -> SourceRows:
    """The table without these rows, by row id."""
    if not removed:
        return table
    kept = tuple(example for example in table.examples if example.row_id not in removed)
    return table if len(kept) == len(table.examples) else replace(table, examples=kept)


def audit_lines(findings: Iterable[Finding], *, removed: bool) -> tuple[AuditLine, ...]:
    """One line for every check and data set that something was found for, in the order of the findings."""
    counts = Counter((finding.source, finding.check) for finding in findings)
    in_order = sorted(counts.items(), key=lambda item: CHECKS.index(item[0][1]))
    return tuple(
        AuditLine(source, check, found, found if removed else 0) for (source, check), found in in_order
    )

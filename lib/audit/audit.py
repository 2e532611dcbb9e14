"""The audit of a stage's rows, between reading and mixing.

Each check looks at the rows that the checks before it left, so that a row is found once and a removal leaves
nothing that a second audit would find. Content comes first, then repeats within the mix, then rows that some
stage is evaluated on. The same rows, in the same order, are found by a plan and by a run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from lib.audit.content import ContentCheck, content_checks
from lib.audit.evaluation_rows import evaluation_rows
from lib.audit.leaks import EXACT, NEAR, LeakRules, leaks
from lib.audit.refusal import nothing_left, refusals
from lib.audit.repeats import Near, duplicates, examples_of, near_duplicates
from lib.audit.template_tokens import token_pattern
from lib.data.chat.chat_format import ChatFormat
from lib.data.mixing.cleaning import Cleaned, Finding, drop_rows
from lib.data.reading.usable_rows import SourceRows
from lib.settings import InputError, StageSettings

Check = Callable[[Sequence[SourceRows]], Iterable[Finding]]


def audit_rows(
    settings: StageSettings,
    chat: ChatFormat | None,
    tables: Sequence[SourceRows],
    allow_download: bool,
    *,
    explain: bool = False,
) -> Cleaned:
    """What SFT_AUDIT asks for. With `explain` the rows are looked at in every mode, and none is refused.

    Raises InputError for findings that are refused, and when a removal empties a data set.
    """
    mode = settings.audit.mode
    if mode == "off" and not explain:
        return Cleaned(tuple(tables))
    findings, kept = _own_findings(settings, chat, tables)
    leaked, kept, notices = _leaked(settings, chat, kept, allow_download)
    findings += leaked
    if mode == "refuse" and findings and not explain:
        raise InputError(refusals(settings, findings))
    if mode != "remove":
        return Cleaned(tuple(tables), tuple(findings), (*notices, *_summary(settings, findings, tables)))
    empty = nothing_left(settings, tables, kept)
    if empty:
        raise InputError(empty)
    return Cleaned(tuple(kept), tuple(findings), (*notices, *_summary(settings, findings, tables)))


def _own_findings(
    settings: StageSettings, chat: ChatFormat | None, tables: Sequence[SourceRows]
) -> tuple[list[Finding], list[SourceRows]]:
    """What is found without looking at evaluation rows, and the tables without it."""
    findings: list[Finding] = []
    kept = [*tables]
    for check in _own_checks(settings, chat):
        found = [*check(kept)]
        findings += found
        kept = _without(kept, found)
    return findings, kept


def _own_checks(settings: StageSettings, chat: ChatFormat | None) -> list[Check]:
    chosen, near = settings.audit.checks, _near(settings)
    content = content_checks(tuple(settings.data.output_markers), token_pattern(chat))
    of_content = {name: content[name] for name in chosen if name in content}
    checks: list[Check] = [partial(_faulty, of_content)]
    if "duplicate" in chosen:
        checks.append(duplicates)
    if "near_duplicate" in chosen:
        checks.append(partial(near_duplicates, near=near))
    return checks


def _faulty(checks: Mapping[str, ContentCheck], tables: Sequence[SourceRows]) -> Iterator[Finding]:
    for row in examples_of(tables):
        faults = ((name, check(row)) for name, check in checks.items())
        name, fault = next((found for found in faults if found[1]), ("", None))
        if fault:
            yield Finding(name, row.source, row.index, fault.reason, fault.text)


def _leaked(
    settings: StageSettings, chat: ChatFormat | None, tables: list[SourceRows], allow_download: bool
) -> tuple[list[Finding], list[SourceRows], tuple[str, ...]]:
    checks = [check for check in (EXACT, NEAR) if check in settings.audit.checks]
    if not checks:
        return [], tables, ()

    def own_cleaning(of: StageSettings, theirs: Sequence[SourceRows]) -> Sequence[SourceRows]:
        return _own_findings(of, chat, theirs)[1]

    others = evaluation_rows(settings, own_cleaning, allow_download=allow_download)
    rules = LeakRules(checks, _near(settings), settings.data.val_ratio, settings.seed)
    found = leaks(tables, others, rules)
    return found, _without(tables, found), others.notices


def _near(settings: StageSettings) -> Near:
    return Near(settings.data.output_markers, settings.audit.near_threshold)


def _without(tables: Sequence[SourceRows], found: Iterable[Finding]) -> list[SourceRows]:
    names = frozenset(finding.row_id for finding in found)
    return [drop_rows(table, names) for table in tables]


def _summary(
    settings: StageSettings, findings: Sequence[Finding], tables: Sequence[SourceRows]
) -> tuple[str, ...]:
    """One line for run, plan and record; nothing where nothing was found or nobody asked."""
    mode = settings.audit.mode
    if not findings or mode == "off":
        return ()
    counts = [(name, sum(finding.check == name for finding in findings)) for name in settings.audit.checks]
    named = ", ".join(f"{name} {count:,}" for name, count in counts if count)
    rows = sum(len(table.examples) for table in tables)
    what = "Audit removed" if mode == "remove" else "[WARNING] The audit found"
    return (f"{what} {len(findings):,} of {rows:,} rows: {named}; --plan --audit shows them",)

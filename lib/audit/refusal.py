"""What the user is told where rows that were found keep the stage from starting."""

from collections.abc import Sequence
from itertools import groupby, pairwise

from lib.data.mixing.cleaning import Finding
from lib.data.reading.usable_rows import SourceRows
from lib.settings import Problem, StageSettings

MEANINGS = {
    "empty": "answers that are empty",
    "truncated": "answers that are cut off",
    "format": "answers that do not parse in their declared format",
    "template_token": "tokens of a chat template inside the content",
    "duplicate": "the same content as an earlier row",
    "near_duplicate": "nearly the content of an earlier row",
    "evaluation": "rows that a stage is evaluated on",
    "near_evaluation": "nearly a row that a stage is evaluated on",
}
LISTED = 1000
"""Row numbers that one problem lists."""


def refusals(settings: StageSettings, findings: Sequence[Finding]) -> list[Problem]:
    """One problem for each check and data set, with the numbers of all its rows."""

    def group(finding: Finding) -> tuple[int, str]:
        return settings.audit.checks.index(finding.check), finding.source

    return [_refusal(settings, [*found]) for _, found in groupby(sorted(findings, key=group), key=group)]


def _refusal(settings: StageSettings, found: Sequence[Finding]) -> Problem:
    first, numbers = found[0], sorted(finding.index for finding in found)
    left = len(numbers) - LISTED
    more = f" and {left:,} more (--plan --audit --json lists all)" if left > 0 else ""
    rows = f"rows {number_ranges(numbers[:LISTED])}{more}" if len(numbers) > 1 else f"row {numbers[0]}"
    return Problem(
        where=first.source,
        key="SFT_AUDIT",
        value=f"{MEANINGS[first.check]} ({first.check}): row {first.index}: {first.reason}"
        + (f" ({first.other})" if first.other else ""),
        expected=f"nothing that SFT_AUDIT_CHECKS finds; found in {rows}, counted from 0",
        remedy="mend or delete these rows, set SFT_AUDIT=remove to leave them out, or take "
        f"{first.check} out of SFT_AUDIT_CHECKS in {settings.env_file}",
    )


def nothing_left(
    settings: StageSettings, tables: Sequence[SourceRows], kept: Sequence[SourceRows]
) -> list[Problem]:
    """One problem for each data set that a removal empties."""
    return [
        Problem(
            where=before.name,
            key="SFT_AUDIT",
            value=f"remove: none of {len(before.examples):,} rows is left",
            expected="a data set with rows of its own that nothing is wrong with",
            remedy="look at them with --plan --audit; then take the data set out of the mix, or checks out "
            f"of SFT_AUDIT_CHECKS, in {settings.env_file}",
        )
        for before, after in zip(tables, kept, strict=True)
        if before.examples and not after.examples
    ]


def number_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `3, 7-9, 12`."""
    starts = [numbers[0], *(later for earlier, later in pairwise(numbers) if later != earlier + 1)]
    ends = [*(earlier for earlier, later in pairwise(numbers) if later != earlier + 1), numbers[-1]]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))

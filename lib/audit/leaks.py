"""Training rows that a stage of the curriculum is evaluated on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lib.audit.evaluation_rows import EvaluationRows
from lib.audit.repeats import Match, Near, examples_of, found, near_matches
from lib.data.mixing.cleaning import Finding, drop_rows
from lib.data.mixing.mixture import held_out_keys
from lib.data.reading.rows import Example
from lib.data.reading.usable_rows import SourceRows

EXACT, NEAR = "evaluation", "near_evaluation"
OWN = "the validation rows of this stage"


@dataclass(frozen=True)
class LeakRules:
    """How leaks are told. The stage's own validation rows follow from its ratio and seed."""

    checks: Sequence[str]
    near: Near
    val_ratio: float
    seed: int


def leaks(tables: Sequence[SourceRows], others: EvaluationRows, rules: LeakRules) -> list[Finding]:
    """Rows that would be trained on although they are, or nearly are, evaluation rows.

    The stage's own validation rows are not trained on, so that only what is near them counts. Once leaks are
    gone fewer rows are held out; those that are free again are looked at in turn.
    """
    all_found: list[Finding] = []
    held_out = _held_out(tables, rules)
    pending = [row for row in examples_of(tables) if row.key not in held_out]
    while pending:
        new = _leaks_among(pending, others, held_out, rules)
        all_found += new
        names = frozenset(finding.row_id for finding in new)
        tables = [drop_rows(table, names) for table in tables]
        before, held_out = held_out, _held_out(tables, rules)
        pending = [row for row in examples_of(tables) if row.key in before and row.key not in held_out]
    return all_found


def _leaks_among(
    rows: Sequence[Example], others: EvaluationRows, held_out: Mapping[str, Example], rules: LeakRules
) -> list[Finding]:
    exact = [Match(row, others.rows[row.key], None) for row in rows if row.key in others.rows]
    same = {match.row.row_id for match in exact}
    matches = exact if EXACT in rules.checks else []
    if NEAR in rules.checks:
        different = (row for row in rows if row.row_id not in same)
        matches += near_matches(different, {**held_out, **others.rows}.values(), rules.near)
    return [_leak(match, others) for match in matches]


def _leak(match: Match, others: EvaluationRows) -> Finding:
    where = others.stage_of.get(match.other.key, OWN)
    if match.similarity is None:
        return found(EXACT, match, f"stands in {where}")
    return found(NEAR, match, f"stands nearly in {where}")


def _held_out(tables: Iterable[SourceRows], rules: LeakRules) -> dict[str, Example]:
    """The validation rows that the split will take, by key."""
    sources = [table for table in tables if table.examples]
    keys = {key for own in held_out_keys(sources, rules.val_ratio, rules.seed) for key in own}
    return {row.key: row for row in examples_of(sources) if row.key in keys}

"""Negatives: rows whose right answer is that there is nothing to find. Which rows they are, and how the mix
is made to have a stated share of them.

For extraction the answer itself tells: a record without an offender. For other tasks SFT_NEGATIVE_LABELS
names the labels that make a row a negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib.data.reading.labels import Label
from lib.data.reading.rows import Example
from lib.settings.errors import Problem
from lib.settings.json_values import WHOLE_MIX
from lib.settings.schema import DataSettings

Kind = tuple[str, bool] | None
"""Where a declared share applies and whether the row is a negative; None where no share is declared."""


@dataclass(frozen=True)
class NegativeRule:
    """What makes a row a negative, and the shares that are asked for."""

    shares: Mapping[str, float]
    """By data set or label; WHOLE_MIX for all of it."""
    labels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: DataSettings) -> "NegativeRule":
        return cls(data.negative_share, frozenset(data.negative_labels or ()))

    def is_negative(self, example: Example) -> bool | None:
        """None: nothing tells negatives and positives apart for this row."""
        return self.negative(example.labels, example.names_nobody)

    def negative(self, labels: Sequence[Label], names_nobody: bool | None) -> bool | None:
        """The same of a row with these labels and an answer that says so (`Example.names_nobody`)."""
        if self.labels and any(label.value in self.labels for label in labels):
            return True
        return False if names_nobody is None and self.labels else names_nobody

    def scope(self, source: str, labels: Sequence[Label]) -> str | None:
        """The first declared share that covers such a row."""
        names = {WHOLE_MIX, source, *(label.value for label in labels)}
        return next((scope for scope in self.shares if scope in names), None)

    def kind(self, source: str, example: Example) -> Kind:
        scope = self.scope(source, example.labels) if self.shares else None
        negative = self.is_negative(example) if scope is not None else None
        return None if scope is None or negative is None else (scope, negative)


NO_RULE = NegativeRule({})


def scaled_parts(parts: Sequence[float], kinds: Sequence[Kind], shares: Mapping[str, float]) -> list[float]:
    """The parts of a mix with negatives as large as declared: within each scope, what its rows take of the
    mix stays as it is, and negatives and positives are scaled to their shares of it."""
    scaled = list(parts)
    for scope, share in shares.items():
        for negative, wanted in ((True, share), (False, 1 - share)):
            whole = sum(part for part, kind in zip(parts, kinds, strict=True) if kind and kind[0] == scope)
            own = sum(part for part, kind in zip(parts, kinds, strict=True) if kind == (scope, negative))
            for i, kind in enumerate(kinds):
                if kind == (scope, negative) and own:
                    scaled[i] = parts[i] * wanted * whole / own
    return scaled


def unreachable_shares(kinds: Sequence[Kind], rule: NegativeRule) -> tuple[Problem, ...]:
    """One problem for each declared share that no mix of these rows can have."""
    problems = []
    for scope, share in rule.shares.items():
        there = {kind[1] for kind in kinds if kind and kind[0] == scope}
        missing = [
            name
            for negative, name, wanted in ((True, "negatives", share), (False, "positives", 1 - share))
            if wanted > 0 and negative not in there
        ]
        if missing:
            where = "the mix" if scope == WHOLE_MIX else f"the rows of {scope}"
            problems.append(
                Problem(
                    where="data sets of the mix",
                    key="SFT_NEGATIVE_SHARE",
                    value=f"{share:g} for {where}",
                    expected=f"{' and '.join(missing)} among {where}; there are none",
                    remedy="name a data set or label of the mix, add such rows, or say by "
                    "SFT_NEGATIVE_LABELS which labels make a row a negative",
                )
            )
    return tuple(problems)

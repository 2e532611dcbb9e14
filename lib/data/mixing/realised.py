"""What is really trained on, counted into the ledger: negatives that are left after encoding, and the rows of
all steps."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from operator import attrgetter

from lib.data.chat.encoded import EncodedRow
from lib.data.mixing.ledger import MixLedger, NegativeLine
from lib.data.mixing.negatives import NegativeRule
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example
from lib.settings.errors import Problem
from lib.settings.json_values import WHOLE_MIX

TOLERANCE = 0.01
"""By how much the share of negatives may differ from what was asked for, beside one row of rounding."""


def negative_lines(
    rows: Iterable[Example],
    draws: Iterable[Example],
    rule: NegativeRule,
    size: Callable[[Example], int] | None,
) -> tuple[NegativeLine, ...]:
    """One line for the whole mix and one per declared share; none where no row can be told apart.

    `rows` are training rows, `draws` what is drawn of them; `size` is that of a draw in the unit of the mix,
    where that is not 1.
    """
    available, drawn = _Negatives(rule), _Negatives(rule)
    available.add_all(rows)
    if size is None:
        drawn.add_all(draws)
    else:
        for example in draws:
            drawn.add(example, 1, size(example))
    return tuple(
        NegativeLine(
            scope=scope,
            requested=rule.shares.get(scope),
            rows=available.all[scope],
            negatives=available.negative[scope],
            drawn=drawn.all[scope],
            drawn_negatives=drawn.negative[scope],
            realised=drawn.share(scope),
        )
        for scope in dict.fromkeys((WHOLE_MIX, *rule.shares))
        if available.all[scope]
    )


def with_usable_negatives(
    ledger: MixLedger,
    draws: Sequence[Example],
    encoded: Sequence[EncodedRow | None],
    rule: NegativeRule,
) -> MixLedger:
    """The ledger with the shares of negatives among draws that survived encoding. A draw that is not encoded
    (None: a plan samples) counts as one that did."""
    all_are_usable = ledger.encoded is not None and ledger.encoded.rows == ledger.upsampled
    if not ledger.negatives or (all_are_usable and ledger.unit == "rows"):
        return ledger
    own = {line.id for line in ledger.sources if line.replay_of is None}
    counted = _Negatives(rule)
    for example, row in zip(draws, encoded, strict=True):
        if example.source in own and (row is None or row.usable):
            counted.add(example, 1, size_in(ledger.unit, row))
    lines = tuple(replace(line, realised=counted.share(line.scope)) for line in ledger.negatives)
    return replace(ledger, negatives=lines)


def size_in(unit: str, row: EncodedRow | None) -> int:
    """Size of an encoded row in the unit of the mix; where tokens count, a row that is dropped has none."""
    if unit == "rows" or row is None:
        return 1
    if not row.usable:
        return 0
    return row.tokens if unit == "tokens" else row.supervised_tokens


def missed_shares(ledger: MixLedger) -> tuple[Problem, ...]:
    """One problem for each declared share of negatives that the rows to be trained on do not have."""
    return tuple(
        Problem(
            where="data sets of the mix",
            key="SFT_NEGATIVE_SHARE",
            value=f"{line.requested:g} for {'the mix' if line.scope == WHOLE_MIX else line.scope}; after "
            f"filtering, truncation and upsampling it is {line.realised:.3f}",
            expected=f"within {TOLERANCE:g} of what is asked for",
            remedy="see with --plan --set SFT_STRICT=0 which rows are dropped or left out (SFT_MAX_SEQ_LEN, "
            "SFT_MIX_MAX_REPEATS) or multiplied (SFT_UPSAMPLE_RULES), or ask for the share that there is",
        )
        for line in ledger.negatives
        if line.requested is not None
        and abs(line.realised - line.requested) > TOLERANCE + 1.5 / max(line.drawn, 1)
    )


def with_trained_rows(
    ledger: MixLedger, rows: Sequence[Example], times: Mapping[int, int], steps: int, rule: NegativeRule
) -> MixLedger:
    """The ledger with the rows of so many steps counted; `times` says how often the row at a position of
    `rows` is trained on."""
    negatives = _Negatives(rule)
    own = {line.id for line in ledger.sources if line.replay_of is None}
    alike: Counter[tuple[str, tuple[Label, ...]]] = Counter()
    for position, count in times.items():
        example = rows[position]
        alike[example.source, example.labels] += count
        if ledger.negatives and example.source in own:
            negatives.add(example, count)
    groups: Counter[object] = Counter()
    for (source, labels), count in alike.items():
        for group in ("all", ("source", source), *labels):
            groups[group] += count
    return replace(
        ledger,
        steps=steps,
        trained=groups["all"],
        sources=tuple(replace(line, trained=groups["source", line.id]) for line in ledger.sources),
        labels=tuple(replace(line, trained=groups[line.field, line.value]) for line in ledger.labels),
        negatives=tuple(
            replace(line, trained=negatives.all[line.scope], trained_negatives=negatives.negative[line.scope])
            for line in ledger.negatives
        ),
    )


class _Negatives:
    """Counts of rows that can be told apart, by scope."""

    def __init__(self, rule: NegativeRule) -> None:
        self.rule = rule
        self._alike: Counter[_Alike] = Counter()
        self._sizes: Counter[_Alike] = Counter()

    def add_all(self, examples: Iterable[Example]) -> None:
        """Each once, and each of the same size."""
        self._alike.update(map(_alike, examples))

    def add(self, example: Example, times: int, size: int = 1) -> None:
        """`size` is that of all these times."""
        self._alike[_alike(example)] += times
        self._sizes[_alike(example)] += size

    @cached_property
    def all(self) -> Counter[str]:
        """Read, as what follows, when all rows are added."""
        return self._by_scope(self._alike, (True, False))

    @cached_property
    def negative(self) -> Counter[str]:
        return self._by_scope(self._alike, (True,))

    @cached_property
    def _whole(self) -> tuple[Counter[str], Counter[str]]:
        """Sizes of negatives, and of negatives and positives."""
        sizes = self._sizes or self._alike
        return self._by_scope(sizes, (True,)), self._by_scope(sizes, (True, False))

    def share(self, scope: str) -> float:
        negative, whole = self._whole
        return negative[scope] / whole[scope] if whole[scope] else 0.0

    def _by_scope(self, counts: Counter["_Alike"], counted: tuple[bool, ...]) -> Counter[str]:
        """Of the rows that are negatives or not, as `counted` says; those that nothing tells are neither."""
        found: Counter[str] = Counter()
        for (source, labels, names_nobody), count in counts.items():
            if self.rule.negative(labels, names_nobody) in counted:
                scope = self.rule.scope(source, labels)
                for name in {WHOLE_MIX, scope or WHOLE_MIX}:
                    found[name] += count
        return found


_Alike = tuple[str, tuple[Label, ...], bool | None]
"""Source, labels and what the answer says: rows that have these in common are counted together."""
_alike: Callable[[Example], _Alike] = attrgetter("source", "labels", "names_nobody")

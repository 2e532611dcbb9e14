"""What is really trained on, counted into the ledger: negatives that are left after encoding, and the rows of
all steps."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lib.data.encoded import EncodedRow
from lib.data.ledger import MixLedger, NegativeLine
from lib.data.negatives import NegativeRule
from lib.data.rows import Example
from lib.settings.errors import Problem
from lib.settings.json_values import WHOLE_MIX

TOLERANCE = 0.01
"""By how much the share of negatives may differ from what was asked for, beside one row of rounding."""


def negative_lines(
    rows: Iterable[Example], draws: Iterable[Example], rule: NegativeRule, size: Callable[[Example], int]
) -> tuple[NegativeLine, ...]:
    """One line for the whole mix and one per declared share; none where no row can be told apart.

    `rows` are training rows, `draws` what is drawn of them; `size` is that of a draw in the unit of the mix.
    """
    available, drawn = _Negatives(rule), _Negatives(rule, size)
    available.add_all(rows)
    drawn.add_all(draws)
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
    ledger: MixLedger, draws: Iterable[Example], encoded: Mapping[str, EncodedRow], rule: NegativeRule
) -> MixLedger:
    """The ledger with the shares of negatives among draws that survived encoding. A draw that is not among
    `encoded` (a plan samples) counts as a row that did."""
    if not ledger.negatives:
        return ledger
    usable = [
        example
        for example in _own(ledger, draws)
        if example.row_id not in encoded or encoded[example.row_id].usable
    ]
    counted = _Negatives(rule, lambda example: size_in(ledger.unit, encoded.get(example.row_id)))
    counted.add_all(usable)
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
            remedy="see in the plan which rows are dropped or left out (SFT_MAX_SEQ_LEN, "
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
    groups: Counter[object] = Counter()
    negatives = _Negatives(rule)
    own = {line.id for line in ledger.sources if line.replay_of is None}
    for position, count in times.items():
        example = rows[position]
        groups["all"] += count
        groups["source", example.source] += count
        for label in example.labels:
            groups[label] += count
        if ledger.negatives and example.source in own:
            negatives.add(example, count)
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


def _own(ledger: MixLedger, draws: Iterable[Example]) -> Iterable[Example]:
    """Without what is replayed of earlier stages."""
    own = {line.id for line in ledger.sources if line.replay_of is None}
    return (example for example in draws if example.source in own)


class _Negatives:
    """Counts of rows that can be told apart, by scope."""

    def __init__(self, rule: NegativeRule, size: Callable[[Example], int] = lambda _: 1) -> None:
        self.rule = rule
        self.size = size
        self.all: Counter[str] = Counter()
        self.negative: Counter[str] = Counter()
        self.sizes: Counter[tuple[str, bool]] = Counter()
        self._known: dict[str, bool | None] = {}

    def add_all(self, examples: Iterable[Example]) -> None:
        for example in examples:
            self.add(example)

    def add(self, example: Example, times: int = 1) -> None:
        if example.row_id not in self._known:
            self._known[example.row_id] = self.rule.is_negative(example)
        negative = self._known[example.row_id]
        if negative is None:
            return
        scope = self.rule.scope(example.source, example.labels)
        for name in {WHOLE_MIX, scope or WHOLE_MIX}:
            self.all[name] += times
            self.negative[name] += times * negative
            self.sizes[name, negative] += times * self.size(example)

    def share(self, scope: str) -> float:
        whole = self.sizes[scope, True] + self.sizes[scope, False]
        return self.sizes[scope, True] / whole if whole else 0.0

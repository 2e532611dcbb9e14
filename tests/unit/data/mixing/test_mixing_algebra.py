"""Properties of the mixing algebra, for random data sets, weights, rules and seeds."""

from collections import Counter
from dataclasses import dataclass, replace
from math import floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.mixing.amounts import Algebra
from lib.data.mixing.mixture import Mixture, plan_mixture
from lib.data.mixing.negatives import NegativeRule
from lib.data.mixing.realised import with_trained_rows
from lib.data.mixing.replay import ReplayPool, ReplaySource
from lib.data.mixing.upsampling import multiplier_of
from lib.data.order.draws import even_draws_of_size
from lib.data.order.order import TrainingOrder
from lib.data.order.schedule import Schedule
from lib.data.reading.rows import to_example
from lib.data.reading.usable_rows import SourceRows
from lib.settings.errors import InputError
from lib.settings.json_values import WHOLE_MIX

LABELS = ("t0", "t1", "t2")


@dataclass(frozen=True)
class Mix:
    sources: tuple[SourceRows, ...]
    algebra: Algebra
    sizes: dict[str, int] | None
    rules: dict[str, float]
    options: dict[str, Any]

    def planned(self) -> Mixture | None:
        """None where the algebra or the split refuses it."""
        try:
            return plan_mixture(
                self.sources, rules=self.rules, algebra=self.algebra, sizes=self.sizes, **self.options
            )
        except InputError:
            return None


@st.composite
def source_tables(draw: st.DrawFn, weighted: bool, unit: str, prefix: str = "s") -> tuple[SourceRows, ...]:
    tables = []
    for number in range(draw(st.integers(1, 3))):
        contents = draw(st.lists(st.integers(0, 60), min_size=2, max_size=30))
        rows = tuple(
            to_example(
                {"prompt": "q", "completion": str(value), "task": LABELS[value % 3], "type": f"y{value % 2}"},
                f"{prefix}{number}",
                index,
            )
            for index, value in enumerate(contents)
        )
        weight = draw(st.floats(0.1, 10)) * (20 if unit == "cap" else 1) if weighted else None
        tables.append(SourceRows(f"{prefix}{number}", weight, rows))
    return tuple(tables)


@st.composite
def mixes(draw: st.DrawFn, **fixed: Any) -> Mix:
    weighted = draw(st.booleans())
    weights = draw(st.sampled_from(["share", "multiplier", "cap"]))
    algebra = Algebra(
        weights=weights,
        unit=draw(st.sampled_from(["rows", "rows", "tokens"])),
        total_size=draw(st.none() | st.integers(1, 100)) if weights == "share" else None,
        exhausted=draw(st.sampled_from(["repeat", "stop", "error"])),
        max_repeats=draw(st.none() | st.integers(1, 3)),
    )
    algebra = replace(algebra, **fixed)
    sources = draw(source_tables(weighted, algebra.weights))
    rows = [row for source in sources for row in source.examples]
    sizes = {row.row_id: draw(st.integers(1, 40)) for row in rows} if algebra.unit != "rows" else None
    rules = draw(st.dictionaries(st.sampled_from(LABELS), st.floats(0.1, 4), max_size=2))
    options = {
        "val_ratio": draw(st.sampled_from([0.0, 0.05, 0.3])),
        "seed": draw(st.integers(0, 5)),
        "strict": False,
    }
    return Mix(sources, algebra, sizes, rules, options)


def times_of(mixture: Mixture, source: SourceRows) -> dict[str, int]:
    drawn = Counter(row.row_id for row in mixture.train)
    held_out = {row.key for row in mixture.validation}
    return {row.row_id: drawn[row.row_id] for row in source.examples if row.key not in held_out}


@settings(max_examples=120, deadline=None)
@given(mixes())
def test_counts_add_up_and_no_evaluation_row_is_trained_on(mix: Mix) -> None:
    mixture = mix.planned()
    if mixture is None:
        return
    ledger = mixture.ledger
    assert sum(line.upsampled for line in ledger.sources) == ledger.upsampled == len(mixture.train)
    assert sum(line.drawn for line in ledger.sources) == ledger.drawn
    assert abs(sum(line.requested for line in ledger.sources) - ledger.base_size) < 1e-6 * ledger.base_size
    assert {row.key for row in mixture.validation}.isdisjoint({row.key for row in mixture.train})


@settings(max_examples=120, deadline=None)
@given(mixes())
def test_draws_are_even_and_within_the_limit(mix: Mix) -> None:
    mixture = replace(mix, rules={}).planned()
    if mixture is None:
        return
    for source in mix.sources:
        times = times_of(mixture, source).values()
        assert max(times) - min(times) <= 1
        # With rows as unit never more; a token amount may end within a row.
        assert mix.algebra.limit is None or max(times) <= mix.algebra.limit


@settings(max_examples=120, deadline=None)
@given(mixes())
def test_rules_multiply_what_was_drawn_evenly_and_nothing_else(mix: Mix) -> None:
    """Of each data set, the rows of one multiplier together; rows that the weights left out stay out."""
    without, mixture = replace(mix, rules={}).planned(), mix.planned()
    if mixture is None or without is None:
        return
    for source in mix.sources:
        before, after = times_of(without, source), times_of(mixture, source)
        groups: dict[float, list[str]] = {}
        for row in source.examples:
            if before.get(row.row_id):
                groups.setdefault(multiplier_of(row, mix.rules), []).append(row.row_id)
        assert {name for name, times in after.items() if times} <= {
            name for g in groups.values() for name in g
        }
        for factor, names in groups.items():
            if factor == 1.0:
                assert all(after[name] == before[name] for name in names)
                continue
            assert sum(after[n] for n in names) == floor(factor * sum(before[n] for n in names) + 0.5)
            assert max(after[n] for n in names) - min(after[n] for n in names) <= 1


@settings(max_examples=120, deadline=None)
@given(mixes(exhausted="repeat", max_repeats=None))
def test_what_is_realised_is_what_was_requested(mix: Mix) -> None:
    """To within a row, or half the longest row where tokens count."""
    mixture = replace(mix, rules={}).planned()
    if mixture is None:
        return
    slack = 1.0 if mix.sizes is None else max(mix.sizes.values()) / 2 + 1e-6
    for line in mixture.ledger.sources:
        assert abs(line.realised - line.requested) <= slack + 1e-9
    if mix.sizes is None:
        assert mixture.ledger.drawn == int(mixture.ledger.base_size + 0.5)


@settings(max_examples=120, deadline=None)
@given(mixes(exhausted="stop", weights="share", unit="rows"))
def test_stop_keeps_the_shares(mix: Mix) -> None:
    mixture = replace(mix, rules={}).planned()
    if mixture is None:
        return
    drawn = mixture.ledger.drawn
    for line in mixture.ledger.sources:
        assert abs(line.drawn - line.share * drawn) < 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(mixes(), st.randoms(use_true_random=False))
def test_the_same_seed_draws_the_same_rows_however_the_files_are_sorted(mix: Mix, random: Any) -> None:
    shuffled, sizes = [], {}
    for source in mix.sources:
        order = random.sample(list(source.examples), len(source.examples))
        rows = tuple(replace(row, index=index) for index, row in enumerate(order))
        # A row's size is its content's: of two rows with the same content as well.
        sizes |= {row.row_id: len(row.messages[-1].content) + 1 for row in rows}
        shuffled.append(replace(source, examples=rows))
    own = {row.row_id: len(row.messages[-1].content) + 1 for s in mix.sources for row in s.examples}
    one = replace(mix, sizes=own if mix.sizes else None).planned()
    other = replace(mix, sources=tuple(shuffled), sizes=sizes if mix.sizes else None).planned()
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert [row.key for row in one.train] == [row.key for row in other.train]


@settings(max_examples=120, deadline=None)
@given(mixes())
def test_no_label_is_lost(mix: Mix) -> None:
    """Every label of the training rows has its line, with the draws that carry it; none of a data set that is
    drawn whole, and not multiplied down, is missing from the draws."""
    mixture = mix.planned()
    if mixture is None:
        return
    drawn = Counter(label for row in mixture.train for label in row.labels)
    lines = {(line.field, line.value): line for line in mixture.ledger.labels}
    held_out = {row.key for row in mixture.validation}
    there = {
        label for s in mix.sources for row in s.examples if row.key not in held_out for label in row.labels
    }
    assert set(lines) == there
    assert {label: line.drawn for label, line in lines.items()} == {label: drawn[label] for label in there}
    if all(factor >= 1 for factor in mix.rules.values()):
        for source, line in zip(mix.sources, mixture.ledger.sources, strict=True):
            if line.drawn >= line.training and mix.sizes is None:
                kept = {row.key for row in source.examples} - held_out
                assert kept <= {row.key for row in mixture.train}


@settings(max_examples=80, deadline=None)
@given(mixes(exhausted="repeat", max_repeats=None, unit="rows"), st.floats(0, 1))
def test_a_declared_share_of_negatives_is_kept(mix: Mix, share: float) -> None:
    """To within the rounding of one row for each data set and kind."""
    rule = NegativeRule({WHOLE_MIX: share}, frozenset({"y1"}))
    mixture = replace(mix, rules={}, options={**mix.options, "negatives": rule}).planned()
    if mixture is None:
        return
    (line,) = mixture.ledger.negatives
    assert line.requested == share
    assert abs(line.drawn_negatives - share * line.drawn) <= 2 * len(mix.sources)
    assert line.drawn == mixture.ledger.upsampled


@settings(max_examples=80, deadline=None)
@given(mixes(exhausted="repeat"), source_tables(False, "rows", "old"), st.floats(0.01, 0.9), st.data())
def test_replay_keeps_its_share_its_ratios_and_no_evaluation_row(
    mix: Mix, earlier: tuple[SourceRows, ...], share: float, data: st.DataObject
) -> None:
    pools = tuple(ReplaySource.of(1, table.name, table.examples) for table in earlier)
    keys = [row.key for table in earlier for row in table.examples]
    excluded = frozenset(data.draw(st.lists(st.sampled_from(keys), max_size=5)))
    pool = ReplayPool(share, pools, excluded)
    without = mix.planned()
    mixture = replace(mix, options={**mix.options, "replay": pool}).planned()
    if mixture is None or without is None:
        return
    own = len(without.train)
    lines = [line for line in mixture.ledger.sources if line.replay_of == 1]
    replayed = [row for row in mixture.train if row.source.startswith("stage 1: ")]
    never = excluded | {row.key for row in mixture.validation}
    assert never.isdisjoint({row.key for row in replayed})
    assert Counter(row.row_id for row in mixture.train if row not in replayed) == Counter(
        row.row_id for row in without.train
    )
    there = Counter(row.source for source in pools for row in source.draws if row.key not in never)
    if not there:
        assert not replayed
        return
    assert mixture.ledger.replayed == len(replayed) == pool.size(own)
    assert abs(len(replayed) - share * len(mixture.train)) <= 0.5 + 1e-9
    for line in lines:
        assert abs(line.drawn - line.requested) <= 1 + 1e-9
        assert abs(line.drawn - len(replayed) * there[line.id] / there.total()) <= 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(mixes(), st.integers(1, 4), st.integers(1, 2), st.floats(0.2, 2.5))
def test_trained_rows_are_those_of_the_schedule(mix: Mix, batch: int, processes: int, epochs: float) -> None:
    mixture = mix.planned()
    if mixture is None or not mixture.train:
        return
    schedule = Schedule(TrainingOrder(len(mixture.train), 1), batch, 1, processes, epochs)
    times = schedule.times()
    rule = NegativeRule({}, frozenset({"y1"}))
    ledger = with_trained_rows(mixture.ledger, mixture.train, times, schedule.steps, rule)
    assert ledger.trained == times.total() == sum(line.trained or 0 for line in ledger.sources)
    for label in LABELS:
        line = next((line for line in ledger.labels if line.value == label), None)
        seen = sum(
            count for at, count in times.items() if label in {x.value for x in mixture.train[at].labels}
        )
        assert (line.trained if line else 0) == seen


@given(st.floats(0, 5000), st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_a_size_is_met_to_half_a_row(amount: float, sizes: list[int]) -> None:
    times = even_draws_of_size(amount, sizes)
    assert max(times) - min(times) <= 1
    if sum(sizes):
        reached = sum(size * count for size, count in zip(sizes, times, strict=True))
        assert abs(reached - amount) <= max(sizes) / 2 + 1e-6

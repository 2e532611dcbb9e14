from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.mixing.amounts import largest_remainder
from lib.data.mixing.mixture import Mixture, plan_mixture
from lib.data.mixing.upsampling import upsample
from lib.data.order.draws import even_counts
from lib.data.reading.rows import to_example
from lib.data.reading.usable_rows import SourceRows
from lib.settings.errors import InputError

MakeRows = Callable[..., SourceRows]


def repeats(mixture: Mixture) -> Counter[str]:
    return Counter(example.row_id for example in mixture.train)


def test_the_example_of_the_guide(source_rows: MakeRows) -> None:
    mixture = plan_mixture([source_rows("A", 1.0, 1000), source_rows("B", 2.0, 500)], val_ratio=0, seed=1)
    a, b = mixture.ledger.sources
    assert (a.drawn, b.drawn, len(mixture.train)) == (333, 667, 1000)
    assert a.requested == pytest.approx(333.333, abs=0.001)
    assert (a.max_repeats, a.unseen) == (1, 667)
    assert (b.max_repeats, b.unseen) == (2, 0)


def test_total_size_replaces_the_largest_source(source_rows: MakeRows) -> None:
    sources = [source_rows("A", 1.0, 10), source_rows("B", 1.0, 10)]
    assert len(plan_mixture(sources, val_ratio=0, seed=1, total_size=7).train) == 7
    unweighted = [replace(source, weight=None) for source in sources]
    assert [
        line.drawn for line in plan_mixture(unweighted, val_ratio=0, seed=1, total_size=6).ledger.sources
    ] == [
        3,
        3,
    ]


def test_without_weights_every_row_is_drawn_once(source_rows: MakeRows) -> None:
    mixture = plan_mixture([source_rows("A", None, 7), source_rows("B", None, 3)], val_ratio=0, seed=1)
    assert len(mixture.train) == 10
    assert set(repeats(mixture).values()) == {1}


def test_ties_of_remainders_go_to_the_earlier_source() -> None:
    assert largest_remainder(3, [1.0, 1.0]) == [2, 1]
    assert largest_remainder(1, [1.0, 1.0, 1.0]) == [1, 0, 0]


@given(st.integers(0, 10_000), st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8))
def test_counts_add_up_and_stay_near_their_quota(total: int, weights: list[float]) -> None:
    counts = largest_remainder(total, weights)
    assert sum(counts) == total
    assert all(
        abs(count - total * weight / sum(weights)) < 1 + 1e-6
        for count, weight in zip(counts, weights, strict=True)
    )


@given(st.integers(0, 1000), st.integers(1, 50))
def test_draws_are_even(draws: int, rows: int) -> None:
    counts = even_counts(draws, rows)
    assert sum(counts) == draws
    assert set(counts) <= {draws // rows, draws // rows + 1}


def test_validation_is_split_before_anything_repeats(source_rows: MakeRows) -> None:
    texts = [f"row {i % 20}" for i in range(60)]  # every row three times
    mixture = plan_mixture([source_rows("A", 3.0, texts), source_rows("B", 1.0, 100)], val_ratio=0.1, seed=1)
    a, b = mixture.ledger.sources
    assert (a.distinct, a.validation, b.validation) == (20, 2, 10)
    assert a.training == 54
    assert len(mixture.validation) == len({example.key for example in mixture.validation}) == 12


def test_a_small_source_still_gives_a_validation_row(source_rows: MakeRows) -> None:
    assert len(plan_mixture([source_rows("A", None, 2)], val_ratio=0.05, seed=1).validation) == 1
    assert len(plan_mixture([source_rows("A", None, 2)], val_ratio=0.99, seed=1).validation) == 1
    assert len(plan_mixture([source_rows("A", None, 1)], val_ratio=0.5, seed=1).validation) == 0
    assert (
        len(plan_mixture([source_rows("A", None, 30)], val_ratio=0.05, seed=1).validation) == 2
    )  # ⌊1.5 + 0.5⌋
    assert len(plan_mixture([source_rows("A", None, 29)], val_ratio=0.05, seed=1).validation) == 1


def test_a_source_wholly_held_out_by_others_is_an_error(source_rows: MakeRows) -> None:
    held_out = plan_mixture([source_rows("A", 1.0, 10)], val_ratio=0.1, seed=1).validation[0]
    twin = replace(held_out, source="B", index=0)
    with pytest.raises(InputError, match="none left for training"):
        plan_mixture([source_rows("A", 1.0, 10), SourceRows("B", 1.0, (twin,))], val_ratio=0.1, seed=1)


def test_rules_multiply_exactly(source_rows: MakeRows) -> None:
    rows = source_rows("A", None, 12, task=["toml"] * 5 + ["csv"] * 4 + ["json"] * 3)
    mixture = plan_mixture([rows], val_ratio=0, seed=1, rules={"toml": 3.0, "csv": 0.5})
    counts = repeats(mixture)
    assert [counts[f"A#{i}"] for i in range(5)] == [3] * 5
    assert sorted(counts[f"A#{i}"] for i in range(5, 9)) == [0, 0, 1, 1]
    assert [counts[f"A#{i}"] for i in range(9, 12)] == [1] * 3
    toml = next(line for line in mixture.ledger.labels if line.value == "toml")
    assert (toml.rows, toml.drawn) == (5, 15)
    assert toml.share == pytest.approx(15 / 20)
    assert (mixture.ledger.drawn, mixture.ledger.upsampled) == (12, 20)


def test_the_largest_matching_rule_counts_and_they_never_compound(source_rows: MakeRows) -> None:
    rows = source_rows("A", None, 2, task="toml", subcategory="hard", pack="x")
    mixture = plan_mixture([rows], val_ratio=0, seed=1, rules={"toml": 2.0, "hard": 3.0, "pack:x": 0.5})
    assert len(mixture.train) == 6


def test_upsampling_spreads_evenly_over_the_drawn_rows(source_rows: MakeRows) -> None:
    rows = source_rows("A", None, 4, task="t").examples
    assert upsample(rows, [2, 1, 1, 0], {"t": 1.5}) == [2, 2, 2, 0]
    assert upsample(rows, [2, 1, 1, 0], {"t": 1.0}) == [2, 1, 1, 0]
    assert upsample(rows, [1, 1, 1, 0], {"t": 0.5}) == [1, 1, 0, 0]  # ⌊1.5 + 0.5⌋


def test_a_rule_that_matches_nothing_lists_the_labels(source_rows: MakeRows) -> None:
    rows = source_rows("A", None, 3, task=["toml", "toml", "csv"], pack="p")
    with pytest.raises(InputError) as caught:
        plan_mixture([rows], val_ratio=0, seed=1, rules={"tomll": 2.0, "p": 2.0, "csv": 2.0})
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "task: toml (2), csv (1)" in text
    assert "pack: pack:p (3)" in text
    assert "Did you mean toml?" in text
    mixture = plan_mixture([rows], val_ratio=0, seed=1, rules={"tomll": 2.0}, strict=False)
    assert mixture.notices[0].startswith('[WARNING] SFT_UPSAMPLE_RULES "tomll" matches no row')


def test_the_shuffle_mixes_the_sources_and_follows_the_seed(source_rows: MakeRows) -> None:
    sources = [source_rows("A", 1.0, 50), source_rows("B", 1.0, 50)]
    first = [example.row_id for example in plan_mixture(sources, val_ratio=0.1, seed=1).train]
    again = [example.row_id for example in plan_mixture(sources, val_ratio=0.1, seed=1).train]
    other = [example.row_id for example in plan_mixture(sources, val_ratio=0.1, seed=2).train]
    assert first == again != other
    assert {row_id[0] for row_id in first[:15]} == {"A", "B"}


@st.composite
def _mixes(draw: st.DrawFn) -> tuple[list[SourceRows], Mapping[str, float], Mapping[str, Any]]:
    """One to three sources with overlapping rows and labels, and rules over them."""
    sources = []
    weighted = draw(st.booleans())
    for number in range(draw(st.integers(1, 3))):
        contents = draw(st.lists(st.integers(0, 40), min_size=2, max_size=30))
        examples = tuple(
            to_example(
                {"prompt": "q", "completion": str(value), "task": f"t{value % 3}"}, f"s{number}", index
            )
            for index, value in enumerate(contents)
        )
        weight = draw(st.floats(0.1, 10)) if weighted else None
        sources.append(SourceRows(f"s{number}", weight, examples))
    rules = draw(st.dictionaries(st.sampled_from(["t0", "t1", "t2"]), st.floats(0.1, 5), max_size=2))
    options = {
        "val_ratio": draw(st.sampled_from([0.0, 0.05, 0.3])),
        "seed": draw(st.integers(0, 5)),
        "total_size": draw(st.none() | st.integers(1, 100)),
        "strict": False,
    }
    return sources, rules, options


def _planned(mix: tuple[list[SourceRows], Mapping[str, float], Mapping[str, Any]]) -> Mixture | None:
    sources, rules, options = mix
    try:
        return plan_mixture(sources, rules=rules, **options)
    except InputError:  # a source of which every row is held out
        return None


@settings(max_examples=60, deadline=None)
@given(_mixes())
def test_no_validation_row_is_trained_on_and_the_ledger_tells_the_truth(mix: Any) -> None:
    mixture = _planned(mix)
    if mixture is None:
        return
    assert {e.key for e in mixture.validation}.isdisjoint({e.key for e in mixture.train})
    ledger, by_source = mixture.ledger, Counter(example.source for example in mixture.train)
    assert sum(line.drawn for line in ledger.sources) == ledger.drawn == ledger.base_size
    assert ledger.upsampled == len(mixture.train)
    for line in ledger.sources:
        assert line.upsampled == by_source[line.id]
        times = [count for row_id, count in repeats(mixture).items() if row_id.startswith(f"{line.id}#")]
        assert line.max_repeats == max(times, default=0)
        assert line.unseen == line.training - len(times)
        assert abs(line.drawn - line.requested) < 1


@settings(max_examples=60, deadline=None)
@given(_mixes(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(mix: Any, random: Any) -> None:
    sources, rules, options = mix
    shuffled = []
    for source in sources:
        order = random.sample(list(source.examples), len(source.examples))
        examples = tuple(replace(example, index=index) for index, example in enumerate(order))
        shuffled.append(replace(source, examples=examples))
    one, other = _planned(mix), _planned((shuffled, rules, options))
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert [e.key for e in one.train] == [e.key for e in other.train]
        assert [e.key for e in one.validation] == [e.key for e in other.validation]


@settings(max_examples=40, deadline=None)
@given(_mixes())
def test_held_out_rows_do_not_depend_on_weights_or_rules(mix: Any) -> None:
    sources, _, options = mix
    one = _planned(mix)
    other = _planned(
        ([replace(source, weight=None) for source in sources], {}, {**options, "total_size": None})
    )
    if one is not None and other is not None:
        assert one.validation == other.validation


def test_the_ledger_is_plain_data(source_rows: MakeRows) -> None:
    ledger = plan_mixture([source_rows("A", 1.0, 4, task="t")], val_ratio=0.25, seed=1).ledger.to_json()
    assert ledger["sources"][0]["training"] == 3
    assert ledger["labels"][0]["value"] == "t"


@pytest.mark.parametrize(
    ("keywords", "key"),
    [
        ({"total_size": 10**25}, "SFT_DATASET_MIX_TOTAL_SIZE"),
        ({"rules": {"toml": 1e300}}, "SFT_UPSAMPLE_RULES"),
    ],
)
def test_more_draws_than_memory_holds_are_refused(
    keywords: dict[str, Any], key: str, source_rows: MakeRows
) -> None:
    with pytest.raises(InputError, match=key):
        plan_mixture([source_rows("A", 1.0, 10, type="toml")], val_ratio=0, seed=1, **keywords)

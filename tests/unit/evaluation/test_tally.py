import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation import tally
from lib.evaluation.tally import Tally, by_label, intervals, ratios

NAMES = ("gen_a", "gen_b", "gen_c")
SHARES = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(
    lambda pair: (float(min(pair)), float(max(pair)))
)
TALLIES = st.lists(st.dictionaries(st.sampled_from(NAMES), SHARES), max_size=12)


def mean_rows(values: list[float]) -> list[Tally]:
    return [{"gen_a": (value, 1.0)} for value in values]


def test_means_precisions_and_f1_are_ratios_of_sums() -> None:
    rows: list[Tally] = [
        {"gen_mean": (2, 1), "gen_f1": (4, 5)},
        {"gen_mean": (3, 1), "gen_f1": (0, 3), "gen_seldom": (1, 2)},
        {"gen_mean": (7, 1), "gen_never": (0, 0)},
    ]
    assert ratios(rows) == {"gen_mean": 4.0, "gen_f1": 0.5, "gen_seldom": 0.5}
    assert ratios([]) == {}


@settings(max_examples=100, deadline=None)
@given(TALLIES)
def test_ratios_agree_with_a_loop_over_rows(rows: list[Tally]) -> None:
    expected = {}
    for name in NAMES:
        top = bottom = 0.0
        for row in rows:
            if name in row:
                top += row[name][0]
                bottom += row[name][1]
        if bottom > 0:
            expected[name] = top / bottom
    assert ratios(rows) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_change_a_single_bit(values: list[float], shuffler: random.Random) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert ratios(mean_rows(values)) == ratios(mean_rows(shuffled))


def test_metrics_of_all_rows_stand_before_those_of_groups() -> None:
    row: Tally = dict.fromkeys(("gen_b/x", "gen_b", "gen_a/y", "gen_a"), (1, 1))
    assert list(ratios([row])) == ["gen_a", "gen_b", "gen_a/y", "gen_b/x"]


def naive_interval(rows: list[Tally], name: str, resamples: int) -> tuple[float, float]:
    chance = random.Random(7)
    values = []
    for _ in range(resamples):
        drawn = [chance.choice(rows).get(name, (0, 0)) for _ in rows]
        bottom = sum(share[1] for share in drawn)
        if bottom:
            values.append(sum(share[0] for share in drawn) / bottom)
    values.sort()
    return values[round(0.025 * (len(values) - 1))], values[round(0.975 * (len(values) - 1))]


def test_intervals_agree_with_a_naive_bootstrap() -> None:
    chance = random.Random(3)
    rows: list[Tally] = []
    for _ in range(150):
        size = chance.randrange(1, 9)
        row = {"gen_f1": (float(chance.randrange(size + 1)), float(size))}
        if chance.random() < 0.1:
            row["gen_seldom"] = (float(chance.random() < 0.4), 1.0)
        rows.append(row)
    found = intervals(rows, resamples=4000)
    for name in ("gen_f1", "gen_seldom"):
        assert found[name] == pytest.approx(naive_interval(rows, name, 4000), abs=0.05)
    assert found["gen_f1"][1] - found["gen_f1"][0] < 0.3


def test_a_mean_has_the_width_that_the_normal_distribution_gives() -> None:
    low, high = intervals(mean_rows([0.0, 1.0] * 200), resamples=4000)["gen_a"]
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.006)


def test_rows_without_a_share_are_drawn_and_count_for_nothing() -> None:
    rows = [{"gen_a": (1.0, 1.0)}, *[{}] * 50, {"gen_b": (0.0, 0.0)}]
    assert intervals(rows) == {"gen_a": (1.0, 1.0)}
    assert intervals([]) == {}


@settings(max_examples=100, deadline=None)
@given(TALLIES)
def test_every_metric_has_an_interval_that_is_the_same_for_the_same_seed(rows: list[Tally]) -> None:
    found = intervals(rows, resamples=50)
    assert set(found) <= set(ratios(rows))
    assert all(0 <= low <= high <= 1 for low, high in found.values())
    assert found == intervals(rows, resamples=50)


def test_other_seeds_and_levels_give_other_intervals() -> None:
    rows = mean_rows([0.1, 0.5, 0.7, 0.2, 0.9, 0.4])
    base = intervals(rows)["gen_a"]
    assert intervals(rows, seed=1)["gen_a"] != base
    narrow = intervals(rows, level=0.5)["gen_a"]
    assert base[0] < narrow[0] < narrow[1] < base[1]


def test_two_hundred_rows_of_sixty_metrics_take_a_fraction_of_a_second() -> None:
    chance = random.Random(0)
    rows: list[Tally] = [{f"gen_{i}": (chance.random(), 1.0) for i in range(60)} for _ in range(200)]
    started = time.thread_time()
    assert len(intervals(rows)) == 60
    assert time.thread_time() - started < 1


def test_groups_are_named_by_field_and_value() -> None:
    rows: list[Tally] = [{"gen_a": (1, 1), "gen_b": (1, 1)}, {"gen_a": (0, 1)}, {}]
    labels = [{"complexity": "simple", "one": "x"}, {"complexity": "complex", "one": "x"}, {"one": "x"}]
    grouped = by_label(rows, labels, ["gen_a"])
    assert grouped[0] == {"gen_a": (1, 1), "gen_b": (1, 1), "gen_a/complexity/simple": (1, 1)}
    assert grouped[1] == {"gen_a": (0, 1), "gen_a/complexity/complex": (0, 1)}
    assert grouped[2] == {}


def test_only_fields_with_two_to_twenty_values_are_groups() -> None:
    def names(count: int) -> set[str]:
        rows: list[Tally] = [{"gen_a": (1, 1)}] * count
        return set(ratios(by_label(rows, [{"k": f"v{i}"} for i in range(count)], ["gen_a"])))

    assert [len(names(count)) for count in (1, 2, 20, 21)] == [1, 3, 21, 1]


def test_names_of_groups_are_names_that_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    values = ["a=b", "..", "../x", "/", "a//b", "名前", "", "a,b;c%", "x.", ".", "a b", "pack:P"]
    rows: list[Tally] = [{"gen_a": (1, 1)}] * len(values)
    for row in by_label(rows, [{"k=/": value} for value in values], ["gen_a"]):
        for name in row:
            _validate_metric_name(name)


@settings(max_examples=100, deadline=None)
@given(TALLIES, st.data())
def test_the_groups_of_a_field_add_up_to_the_whole(rows: list[Tally], data: st.DataObject) -> None:
    labels = [{"k": data.draw(st.sampled_from(["x", "y"]))} for _ in rows]
    grouped = by_label(rows, labels, NAMES)
    for value in ("x", "y"):
        own = ratios([row for row, label in zip(rows, labels, strict=True) if label["k"] == value])
        found = ratios(grouped)
        if len({label["k"] for label in labels}) == 2:
            assert {name: found.get(f"{name}/k/{value}") for name in own} == own


def test_many_rows_are_resampled_in_parts_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(3)
    rows = mean_rows([float(drawn.randrange(5)) for _ in range(40)])
    whole = intervals(rows)
    monkeypatch.setattr(tally, "DRAWS_HELD", 40 * 7)
    assert intervals(rows)["gen_a"] == pytest.approx(whole["gen_a"])

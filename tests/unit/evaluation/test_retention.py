import random
from typing import Any

from lib.evaluation.retention import headline_metric, retention_matrix


def record(stage: int, before: float | None, after: float | None, kept: dict[int, float]) -> dict[str, Any]:
    def side(value: float | None) -> dict[str, Any]:
        if value is None:
            return {"metrics": {}}
        return {"metrics": {"gen_leaf_f1": value}, "intervals": {"gen_leaf_f1": [value - 0.1, value + 0.1]}}

    entries = [
        {"stage": earlier, "headline": "gen_leaf_f1", "now": now, "interval": [now - 0.2, now + 0.2]}
        for earlier, now in kept.items()
    ]
    evaluation = {"headline": "gen_leaf_f1", "before": side(before), "after": side(after)}
    return {"stage": stage, "evaluation": {**evaluation, "retention": entries}}


def test_every_number_lands_where_a_naive_count_puts_it() -> None:
    source = random.Random(3)
    for stages in range(1, 6):
        truth = [[round(source.random(), 3) for _ in range(stages)] for _ in range(stages + 1)]
        records = [
            record(k + 1, truth[k][k], truth[k + 1][k], {j + 1: truth[k + 1][j] for j in range(k)})
            for k in range(stages)
        ]
        matrix = retention_matrix(records)
        for row in range(stages + 1):
            for column in range(stages):
                # A model is scored on the set of the stage that comes next, and on all before.
                expected = truth[row][column] if column <= row else None
                assert matrix.values[row][column] == expected, (row, column)


def test_rows_are_models_and_columns_are_sets() -> None:
    matrix = retention_matrix([record(1, 0.2, 0.7, {}), record(3, 0.3, 0.8, {1: 0.6})])
    assert matrix.rows == ("base", "after stage 1", "after stage 3")
    assert matrix.columns == ("set of stage 1", "set of stage 3")
    assert matrix.values == ((0.2, None), (0.7, 0.3), (0.6, 0.8))
    assert matrix.measured == 5


def test_intervals_go_with_their_values() -> None:
    matrix = retention_matrix([record(1, None, 0.5, {}), record(2, None, 0.5, {1: 0.5})])
    assert matrix.intervals == ((None, None), ((0.4, 0.6), None), ((0.3, 0.7), (0.4, 0.6)))


def test_what_was_not_measured_stays_empty() -> None:
    matrix = retention_matrix([{"stage": 1, "evaluation": {"before": None}}])
    assert matrix.values == ((None,), (None,))
    assert matrix.metrics == ("",)
    assert matrix.measured == 0
    assert retention_matrix([]).values == ((),)


def test_records_that_name_no_headline_use_the_parse_rate() -> None:
    older = {"before": {"metrics": {}}, "after": {"metrics": {"gen_parse_rate": 0.9}}}
    assert headline_metric(older) == "gen_parse_rate"
    assert retention_matrix([{"stage": 1, "evaluation": older}]).values == ((None,), (0.9,))


def test_a_column_never_mixes_metrics() -> None:
    later = record(2, 0.1, 0.2, {1: 0.9})
    later["evaluation"]["retention"][0] |= {"headline": "other", "metrics": {"gen_leaf_f1": 0.4}}
    assert retention_matrix([record(1, 0.1, 0.5, {}), later]).values[2][0] == 0.4
    later["evaluation"]["retention"][0]["metrics"] = {}
    assert retention_matrix([record(1, 0.1, 0.5, {}), later]).values[2][0] is None


def test_a_stage_that_is_not_among_the_records_has_no_column() -> None:
    assert retention_matrix([record(2, 0.1, 0.2, {1: 0.9})]).values == ((0.1,), (0.2,))

from typing import Any

import pytest
from stage_records import evaluation, ledger, masked_row, retained, samples, scored, stage_record

from lib.evaluation.retention import retention_matrix
from lib.report.charts import figures, ledger_sources, loss_curve, retention_heat_map, score_bars
from lib.report.content import report_content
from lib.report.scores import scores


def charts(record: dict[str, Any], *ancestors: dict[str, Any]) -> dict[str, Any]:
    return figures(report_content(record, ancestors, samples(), [masked_row()]))


def trace(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


def test_every_chart_is_there_by_name() -> None:
    assert list(charts(stage_record(2), stage_record(1))) == [
        "ledger_sources",
        "ledger_format",
        "ledger_type",
        "loss",
        "learning_rate",
        "metrics",
        "scores",
        "scores_by_label",
        "retention",
    ]


def test_a_mix_in_tokens_is_asked_for_and_given_in_tokens() -> None:
    in_tokens = ledger() | {"unit": "supervised_tokens"}
    for line in in_tokens["sources"]:
        line["realised"] = line["requested"] + 4
    figure = ledger_sources(in_tokens)
    assert [trace.name for trace in figure.data] == ["supervised tokens asked for", "supervised tokens drawn"]
    assert list(trace(figure, "supervised tokens drawn").x) == [337.3, 670.7]


def test_charts_without_data_are_left_out() -> None:
    record = stage_record(1, scores={"before": {"metrics": {}}, "after": {"metrics": {}}})
    record["data"]["ledger"]["labels"] = []
    record["training"]["history"] = []
    assert list(charts(record)) == ["ledger_sources"]


def test_the_ledger_shows_what_was_asked_for_drawn_and_mixed() -> None:
    figure = ledger_sources(ledger())
    assert [bar.name for bar in figure.data] == ["asked for", "drawn", "in the mix"]
    assert list(trace(figure, "asked for").x) == [333.3, 666.7]
    assert list(trace(figure, "in the mix").x) == [333, 900]


def test_names_are_no_markup_in_charts() -> None:
    hostile = ledger()
    hostile["sources"][0]["id"] = "<a href='https://x'>"
    figure = ledger_sources(hostile)
    assert "<a" not in str(figure.data[0].y) + str(figure.data[0].customdata)


def test_names_that_are_shortened_alike_stay_apart() -> None:
    twins = ledger()
    for line, name in zip(twins["sources"], ("a" * 50, "b" + "a" * 50), strict=True):
        line["id"] = name
    assert len(set(ledger_sources(twins).data[0].y)) == 2


def test_losses_are_drawn_over_steps_and_the_best_is_marked() -> None:
    history = [{"step": 5, "loss": 0.5}, {"step": 5, "eval_loss": 0.6}, {"step": 9, "loss": float("nan")}]
    figure = loss_curve(history, best_step=5)
    assert list(trace(figure, "training").x) == [5, 9]
    assert list(trace(figure, "validation").y) == [0.6]
    assert len(figure.layout.shapes) == 1
    assert "null" in figure.to_json()
    assert "NaN" not in figure.to_json()


def test_curves_begin_before_and_end_after_training() -> None:
    curve = trace(charts(stage_record(1))["metrics"], "values right in held-out answers (F1)")
    assert list(curve.x) == [0, 20, 40, 60]
    assert list(curve.y) == [0.62, 0.6, 0.7, 0.8]


def test_a_band_is_drawn_where_every_point_has_an_interval() -> None:
    record = stage_record(1)
    record["training"]["history"] = []
    assert [trace.fill for trace in charts(record)["metrics"].data] == ["toself", None] * 2


def test_bars_carry_confidence_intervals() -> None:
    found = scores(evaluation(0.5, 0.8))
    figure = score_bars([score for score in found if score.metric == "gen_leaf_f1"])
    after = trace(figure, "after training")
    assert after.x[0] - after.error_x.arrayminus[0] == pytest.approx(0.74)
    assert after.x[0] + after.error_x.array[0] == pytest.approx(0.85)


def test_without_a_measurement_before_there_is_one_bar() -> None:
    figure = score_bars(scores({"headline": "gen_leaf_f1", "before": None, "after": scored(0.8)})[:1])
    assert [bar.name for bar in figure.data] == ["after training"]


def test_unmeasured_cells_of_the_heat_map_are_empty_and_say_so() -> None:
    records = [stage_record(1), stage_record(2, scores=evaluation(0.6, 0.8, retained(1, 0.7)))]
    empty, measured = retention_heat_map(retention_matrix(records)).data
    assert "not measured" in empty.hovertemplate
    assert [list(row) for row in measured.z] == [[0.62, None], [0.8, 0.6], [0.7, 0.8]]
    assert [list(row) for row in measured.text] == [["0.62", ""], ["0.80", "0.60"], ["0.70", "0.80"]]
    assert measured.hovertext[2][0] == "0.70 (0.64 to 0.75)"

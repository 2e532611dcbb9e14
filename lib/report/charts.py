"""The report's charts: a function each, from plain data to a plotly figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from lib.evaluation.retention import Interval, Matrix
from lib.report.content import ReportContent
from lib.report.drawing import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    LINES,
    ORANGE,
    ROOM_FOR_NUMBERS,
    bars,
    curve,
    curve_with_band,
    empty_figure,
    error_bars,
)
from lib.report.negatives import WHOLE_MIX, NegativeStage
from lib.report.scores import Measured, Score
from lib.report.wording import metric_words, short_name
from lib.report.wording import score as score_text

SHOWN_LABELS = 12
# Black numbers are easy to read on all of it.
PALE_TO_BLUE = ["#fbeee0", "#cfe0ec", "#4ea3dc"]
EMPTY_CELL = "rgba(125,133,144,0.14)"


def figures(content: ReportContent) -> dict[str, go.Figure]:
    """Every chart that the stage has data for, by name: on the page, and as the tracker logs them."""
    curves = metric_curves(content.history, content.scores, content.steps)
    made = {
        "ledger_sources": ledger_sources(content.ledger),
        **{f"ledger_{field}": ledger_label(content.ledger, field) for field in label_fields(content.ledger)},
        "loss": loss_curve(content.history, content.best_step),
        "learning_rate": learning_rate_curve(content.history),
        "metrics": curves,
        "scores": score_bars(
            [score for score in content.scores if score.higher_is_better and not score.label]
        ),
        "scores_by_label": score_bars(headline_by_label(content)),
        "negatives": negatives_by_stage(content.negatives),
        "retention": retention_heat_map(content.matrix),
    }
    return {name: figure for name, figure in made.items() if figure.data}


def label_fields(ledger: Mapping[str, Any]) -> list[str]:
    """Those that tell the rows of a mix apart."""
    fields = [line["field"] for line in ledger["labels"]]
    return [field for field in dict.fromkeys(fields) if fields.count(field) > 1]


def headline_by_label(content: ReportContent) -> list[Score]:
    prefix = f"{content.headline}/"
    return [score for score in content.scores if content.headline and score.metric.startswith(prefix)]


def ledger_sources(ledger: Mapping[str, Any]) -> go.Figure:
    """Per data set: what was asked for, what the draw gave, and what upsampling made of it.

    Where weights count tokens, asked for and drawn are in tokens; upsampling counts rows and is left out.
    """
    lines, unit = ledger["sources"], ledger.get("unit", "rows")
    columns = [
        ("requested", "asked for", GREY),
        ("drawn", "drawn", BLUE),
        ("upsampled", "in the mix", ORANGE),
    ]
    if unit != "rows":
        said = unit.replace("_", " ")
        columns = [("requested", f"{said} asked for", GREY), ("realised", f"{said} drawn", BLUE)]
    names = [short_name(line["id"]) for line in lines]
    return bars(
        names, [(text, color, [round(line[key], 1) for line in lines]) for key, text, color in columns]
    )


def ledger_label(ledger: Mapping[str, Any], field: str) -> go.Figure:
    """Per value of one label: how many rows carry it, what was asked for, how often they were drawn."""
    lines = [line for line in ledger["labels"] if line["field"] == field]
    shown = sorted(lines, key=lambda line: (-line["drawn"], -line["rows"]))[:SHOWN_LABELS]
    asked = [round(line["requested"], 1) for line in shown if "requested" in line]
    return bars(
        [line["value"] for line in shown],
        [
            ("rows available", GREY, [line["rows"] for line in shown]),
            *([("asked for", BLUE, asked)] if asked else []),
            ("in the mix", ORANGE, [line["drawn"] for line in shown]),
        ],
    )


def negatives_by_stage(negatives: Sequence[NegativeStage]) -> go.Figure:
    """Share of negatives over the stages, with the scores that it moves; a curve needs two stages."""
    figure = empty_figure(height=300, x_title="stage", y_title="share")
    stages = [line for line in negatives if line.scope == WHOLE_MIX]
    series: list[tuple[str, Sequence[float | None]]] = [
        ("negatives in training", [line.realised for line in stages]),
        ("precision", [line.precision for line in stages]),
        ("recall", [line.recall for line in stages]),
        ("false alarms on negatives", [line.false_alarms for line in stages]),
    ]
    for (name, values), color, dash in zip(series, LINES, DASHES, strict=False):
        points = [
            (line.stage, value) for line, value in zip(stages, values, strict=True) if value is not None
        ]
        if len(points) > 1:
            figure.add_trace(curve([x for x, _ in points], [y for _, y in points], name, color, dash))
    figure.update_yaxes(range=[0, 1.03])
    figure.update_xaxes(dtick=1)
    return figure


def loss_curve(history: Sequence[Mapping[str, Any]], best_step: int | None) -> go.Figure:
    """Training and validation loss over steps; the step whose weights were kept is marked."""
    figure = empty_figure(height=300, x_title="step", y_title="loss, nats per token")
    for key, name, color, dash in (
        ("loss", "training", BLUE, "solid"),
        ("eval_loss", "validation", ORANGE, "dash"),
    ):
        steps, values = _series(history, key)
        if steps:
            figure.add_trace(curve(steps, values, name, color, dash))
            if key == "eval_loss" and best_step in steps:
                figure.add_vline(
                    best_step,
                    line={"color": GREY, "width": 1, "dash": "dot"},
                    annotation_text="best",
                    annotation_position="top left",
                )
    figure.update_yaxes(rangemode="tozero")
    return figure


def learning_rate_curve(history: Sequence[Mapping[str, Any]]) -> go.Figure:
    figure = empty_figure(height=300, x_title="step", y_title="learning rate")
    steps, values = _series(history, "learning_rate")
    if steps:
        figure.add_trace(curve(steps, values, "learning rate", GREEN, "solid"))
    figure.update_layout(showlegend=False)
    figure.update_yaxes(rangemode="tozero", exponentformat="e", nticks=5)
    return figure


def metric_curves(history: Sequence[Mapping[str, Any]], scores: Sequence[Score], steps: int) -> go.Figure:
    """Scores of the answers over steps, with confidence intervals where they were measured.

    Before training is step 0 and after training the last one; one point alone makes no curve.
    """
    figure = empty_figure(height=320, x_title="step", y_title="share")
    shares = [score for score in scores if score.higher_is_better and not score.label]
    for score, color, dash in zip(shares, LINES, DASHES, strict=False):
        points = _points(history, score, steps)
        if len(points) > 1:
            figure.add_traces(curve_with_band(points, metric_words(score.metric), color, dash))
    figure.update_yaxes(range=[0, 1.03])
    return figure


def score_bars(scores: Sequence[Score]) -> go.Figure:
    """Before beside after, with confidence intervals."""
    names = [score.label or metric_words(score.metric) for score in scores]
    sides: list[tuple[str, str, list[Measured | None]]] = [
        ("before training", GREY, [score.before for score in scores]),
        ("after training", ORANGE, [score.after for score in scores]),
    ]
    present = [side for side in sides if any(side[2])]
    figure = bars(
        names, [(text, color, [m.value if m else None for m in column]) for text, color, column in present]
    )
    for trace, (_, _, column) in zip(figure.data, present, strict=True):
        trace.error_x = error_bars(column)
        trace.text = [score_text(measured.value) if measured else "" for measured in column]
        if any(measured and measured.interval for measured in column):
            trace.update(textposition="inside", insidetextanchor="start", textfont={"color": "#000"})
    figure.update_xaxes(range=[0, ROOM_FOR_NUMBERS], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure


def retention_heat_map(matrix: Matrix) -> go.Figure:
    """Each model's headline score on each stage's evaluation set; unmeasured cells are empty."""
    figure = empty_figure(height=110 + 44 * len(matrix.rows))
    if not matrix.measured:
        return figure
    cells = [[None if value is not None else 0 for value in row] for row in matrix.values]
    measured = [value for row in matrix.values for value in row if value is not None]
    shares = min(measured) >= 0 and max(measured) <= 1
    several = len(set(matrix.metrics)) > 1
    columns = [
        f"{column}<br>{escape(metric, quote=False)}" if several else column
        for column, metric in zip(matrix.columns, matrix.metrics, strict=True)
    ]
    place = {
        "x": columns,
        "y": list(matrix.rows),
        "xgap": 3,
        "ygap": 3,
        "showscale": False,
        "hoverongaps": False,
    }
    figure.add_heatmap(
        z=cells,
        hovertemplate="%{y}, %{x}<br>not measured<extra></extra>",
        colorscale=[EMPTY_CELL] * 2,
        **place,
    )
    figure.add_heatmap(
        z=[list(row) for row in matrix.values],
        text=[[score_text(value) if value is not None else "" for value in row] for row in matrix.values],
        hovertext=_hover_texts(matrix),
        texttemplate="%{text}",
        hovertemplate="%{y}, %{x}<br><b>%{hovertext}</b><extra></extra>",
        colorscale=PALE_TO_BLUE,
        textfont={"color": "#000"},
        zmin=0 if shares else None,
        zmax=1 if shares else None,
        **place,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", showgrid=False)
    return figure


def _hover_texts(matrix: Matrix) -> list[list[str]]:
    def text(value: float | None, interval: Interval | None) -> str:
        span = f" ({score_text(interval[0])} to {score_text(interval[1])})" if interval else ""
        return "" if value is None else score_text(value) + span

    return [
        [text(value, interval) for value, interval in zip(values, intervals, strict=True)]
        for values, intervals in zip(matrix.values, matrix.intervals, strict=True)
    ]


def _points(history: Sequence[Mapping[str, Any]], score: Score, last_step: int) -> dict[int, Measured]:
    """Step → score: the curve from the trainer's log, with the ends measured before and after training."""
    steps, values = _series(history, score.metric)
    points = {step: Measured(value, None) for step, value in zip(steps, values, strict=True)}
    ends = {0: score.before, last_step: score.after}
    return points | {step: measured for step, measured in ends.items() if measured}


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the entries that have the key."""
    found = {int(entry["step"]): float(entry[key]) for entry in history if entry.get(key) is not None}
    return list(found), list(found.values())

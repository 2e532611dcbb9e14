"""The look of the report's charts: colours, axes, bars, lines and their uncertainty.

Backgrounds are transparent and text has no colour of its own: the page supplies both, light or dark.
Names from data sets are escaped, because plotly reads them as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from lib.report.scores import Measured

# Told apart with any colour vision (after Okabe and Ito), at least 3:1 against white and near-black.
BLUE, ORANGE, GREEN, PINK, GREY = "#2a7fc0", "#d55e00", "#0a9268", "#b8609a", "#7d8590"
LINES = (BLUE, ORANGE, GREEN, PINK, GREY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
LONGEST_NAME = 24
ROOM_FOR_NUMBERS = 1.28
"""Bars end before the border, so that the number behind them fits on a phone, too."""
TRANSPARENT = "rgba(0,0,0,0)"


def empty_figure(*, height: int, x_title: str = "", y_title: str = "") -> go.Figure:
    """No zooming: on a phone it would catch the scrolling finger."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        dragmode=False,
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
        xaxis_title=x_title,
        yaxis_title=y_title,
    )
    figure.update_xaxes(fixedrange=True, automargin=True, zeroline=False, title_font_size=13)
    figure.update_yaxes(fixedrange=True, automargin=True, zeroline=False, title_font_size=13)
    return figure


def bars(names: Sequence[str], groups: Sequence[tuple[str, str, Sequence[float | None]]]) -> go.Figure:
    """Horizontal bars, grouped by name; `groups` are (legend, colour, values)."""
    figure = empty_figure(height=80 + len(names) * (14 + 20 * max(len(groups), 2)))
    labels = _labels(names)
    for legend, color, values in groups:
        figure.add_trace(
            go.Bar(
                orientation="h",
                name=legend,
                x=list(values),
                y=labels,
                customdata=[escape(name, quote=False) for name in names],
                text=[f"{value:,.0f}" if value is not None else "" for value in values],
                textposition="outside",
                cliponaxis=False,
                textangle=0,
                constraintext="none",
                marker_color=color,
                hovertemplate="%{customdata}<br>" + legend + ": <b>%{x:,}</b><extra></extra>",
            )
        )
    longest = max((value for _, _, values in groups for value in values if value is not None), default=0)
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.08)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=6)
    figure.update_xaxes(range=[0, longest * ROOM_FOR_NUMBERS or 1], nticks=5)
    return figure


def _labels(names: Sequence[str]) -> list[str]:
    """Narrow enough for a phone, still different from each other. Words are wrapped; of a long name
    without spaces the end tells most."""
    labels: list[str] = []
    for name in names:
        lines = wrap(name, LONGEST_NAME, break_long_words=False) or [""]
        short = [line if len(line) <= LONGEST_NAME else "…" + line[1 - LONGEST_NAME :] for line in lines]
        label = "<br>".join(escape(line, quote=False) for line in short)
        while label in labels:
            label += "'"
        labels.append(label)
    return labels


def curve(steps: Sequence[int], values: Sequence[float], name: str, color: str, dash: str) -> go.Scatter:
    return go.Scatter(
        x=list(steps),
        y=list(values),
        name=escape(name, quote=False),
        mode="lines+markers",
        line={"color": color, "dash": dash, "width": 2},
        marker={"size": 5},
        cliponaxis=False,
        hovertemplate="step %{x}: <b>%{y:.4g}</b>",
    )


def curve_with_band(points: Mapping[int, Measured], name: str, color: str, dash: str) -> list[go.Scatter]:
    """A band between neighbours that both have an interval; a whisker where one stands alone."""
    steps = sorted(points)
    line = curve(steps, [points[step].value for step in steps], name, color, dash)
    known = [step for step in steps if points[step].interval]
    if len(known) < len(steps):
        line.error_y = error_bars([points[step] for step in steps])
        return [line]
    intervals = [interval for step in steps if (interval := points[step].interval)]
    band = go.Scatter(
        x=[*steps, *reversed(steps)],
        y=[*(high for _, high in intervals), *(low for low, _ in reversed(intervals))],
        fill="toself",
        fillcolor=color,
        opacity=0.18,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    return [band, line]


def error_bars(column: Sequence[Measured | None]) -> dict[str, Any]:
    """Distances up and down from each value, as plotly wants them."""
    spans = [(m.value, *m.interval) if m and m.interval else (0.0, 0.0, 0.0) for m in column]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in spans],
        "arrayminus": [value - low for value, low, _ in spans],
        "thickness": 1.5,
        "width": 4,
        "visible": any(m is not None and m.interval is not None for m in column),
    }

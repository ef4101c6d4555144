"""Charts as plotly figures, made of plain dictionaries without importing plotly.

The page sets the colors of text, lines and background, for its light and its dark theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from tffl.drawing.guard import drawable
from tffl.report.document import COLORS, Bars, Chart, MatrixChart, Plot, Series
from tffl.untrusted.refusal import escape_controls

MAX_SYMBOLS = 60
"""Lines with more points are drawn without symbols."""

MAX_LABELED_CELLS = 400
"""Matrices with more cells are drawn without text."""


def plotly_figure(chart: Chart) -> dict[str, Any]:
    """Returns the `data` and `layout` of a chart; undefined and infinite numbers are None."""
    data, layout = _CONVERTERS[type(chart)](chart)
    size = {"height": _height(chart), "margin": {"l": 64, "r": 16, "t": 16, "b": 48}}
    return {"data": data, "layout": {**size, **layout}}


def plotly_text(text: str) -> str:
    """Returns a user's text, escaped because plotly interprets HTML tags in everything it draws."""
    return html.escape(escape_controls(text, keep="\n"), quote=False).replace("\n", "<br>")


def _height(chart: Chart) -> int:
    if isinstance(chart, MatrixChart):
        return int(min(1400, max(260, 140 + len(chart.y) * (44 if chart.text else 22))))
    return 380


def _plot(chart: Plot) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    scattered = any(not series.dash and series.rows for series in chart.series)
    layout: dict[str, Any] = {
        "xaxis": _axis(chart.x_label, rates=chart.square),
        "yaxis": _axis(chart.y_label, rates=chart.rates),
        "hovermode": "closest" if scattered or chart.square else "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    if chart.linear:
        layout["meta"] = {"linear": _number(chart.linear), "log": chart.log}
    if not chart.square:
        layout["xaxis"] |= {"tickformat": "d", "rangemode": "normal"}
        _mark_every_round(chart, layout["xaxis"])
    return [_trace(series, chart) for series in chart.series], layout


def _mark_every_round(chart: Plot, axis: dict[str, Any]) -> None:
    """Puts a tick at every round if there are few; plotly would add fractions of rounds."""
    rounds = {float(x) for series in chart.series for x in series.x}
    if rounds and max(rounds) - min(rounds) < 10:
        axis |= {"dtick": 1, "range": [min(rounds) - 0.5, max(rounds) + 0.5]}


def _trace(series: Series, chart: Plot) -> dict[str, Any]:
    symbol = series.symbol if len(series.x) <= MAX_SYMBOLS or not series.dash else ""
    mode = "+".join(filter(None, ["lines" if series.dash else "", "markers" if symbol else ""]))
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": plotly_text(series.name),
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "mode": mode or "lines",
    }
    if series.dash:
        trace["line"] = {"color": series.color, "dash": series.dash, "width": 2}
    if symbol:
        trace["marker"] = {"color": series.color, "symbol": symbol, "size": 8}
    if series.hover:
        trace |= {"text": [plotly_text(words) for words in series.hover]}
        trace["hovertemplate"] = "%{text}<extra></extra>"
    elif chart.square:
        trace["hovertemplate"] = "%{x:.1%}, %{y:.1%}"
    elif chart.rates:
        trace["hovertemplate"] = "%{y:.1%}"
    if series.rows:
        trace["customdata"] = list(series.rows)
    return trace


def _bars(chart: Bars) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    patterns = ("", "/", ".", "x")
    data = [
        {
            "type": "bar",
            "name": plotly_text(name),
            "x": list(chart.x),
            "y": _numbers(values),
            "marker": {
                "color": COLORS[index % len(COLORS)],
                "pattern": {
                    "shape": patterns[index % len(patterns)],
                    "fillmode": "overlay",
                    "solidity": 0.3,
                },
            },
            "hovertemplate": "%{y:.3g}",
        }
        for index, (name, values) in enumerate(chart.stacks.items())
    ]
    layout: dict[str, Any] = {
        "barmode": "stack",
        "xaxis": {**_axis(chart.x_label), "tickformat": "d"},
        "yaxis": _axis(chart.y_label),
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    if len(chart.x) <= 10:
        layout["xaxis"]["dtick"] = 1
    return data, layout


def _matrix(chart: MatrixChart) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    x, y = _labels(chart.x), _labels(chart.y)
    values = [_numbers(line) for line in chart.values]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": values,
        "zmin": chart.low,
        "zmax": brightest_value(chart),
        "colorscale": "Cividis",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": plotly_text(chart.unit), "side": "right"}, "thickness": 12},
        "hovertemplate": f"{plotly_text(chart.y_label)} %{{y}}<br>"
        f"{plotly_text(chart.x_label)} %{{x}}<br>"
        "%{z:.4g}<extra></extra>",
    }
    if chart.text and len(x) * len(y) <= MAX_LABELED_CELLS:
        trace["text"] = [[plotly_text(cell) for cell in line] for line in chart.text]
        trace["texttemplate"] = "%{text}"
    layout = {
        "xaxis": {**_axis(chart.x_label), "type": "category", "showgrid": False},
        "yaxis": {
            **_axis(chart.y_label),
            **{"type": "category", "autorange": "reversed", "showgrid": False},
        },
    }
    return [trace], layout


def brightest_value(chart: MatrixChart) -> float:
    """Returns the value of a matrix' brightest color, which exceeds that of its darkest."""
    if chart.high is not None:
        return chart.high
    known = drawable([value for line in chart.values for value in line if math.isfinite(value)])
    high = float(known.max(initial=chart.low))
    return high if high > chart.low else chart.low + 1


def _labels(names: Sequence[str]) -> list[str]:
    return [plotly_text(name) for name in names]


def _axis(title: str, rates: bool = False) -> dict[str, Any]:
    # With a standoff the title makes room for long tick labels; otherwise it would overlap them.
    label = {"text": plotly_text(title), "standoff": 14}
    axis: dict[str, Any] = {"title": label, "automargin": True, "zeroline": False}
    if rates:
        axis |= {"tickformat": ".0%", "range": [-0.03, 1.03]}
    return axis


def _numbers(values: Sequence[float]) -> list[float | int | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return float(f"{float(drawable(value)):.6g}") if math.isfinite(value) else None


_CONVERTERS: dict[type, Any] = {Plot: _plot, Bars: _bars, MatrixChart: _matrix}

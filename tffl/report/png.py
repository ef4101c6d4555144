"""The charts of a report as PNG files, drawn with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.drawing import figures
from tffl.drawing import guard as drawing
from tffl.report.document import COLORS, Bars, Block, Chart, MatrixChart, Plot
from tffl.report.plotly_charts import MAX_LABELED_CELLS, MAX_SYMBOLS, brightest_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {
    **{"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^"},
    **{"x": "X", "cross": "P", "": ""},
}
LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "": ""}


def write_picture(block: Block, path: Path) -> bool:
    """Writes the picture of a block that has a chart or heat maps.

    Returns:
      Whether the picture was drawn; a failure to draw is only a warning.

    Raises:
      TfflError: The file cannot be written.
    """
    if block.gallery is not None:
        from tffl.drawing.heat_maps import heat_maps

        return drawing.write(path, heat_maps, block.gallery.explanation)
    return drawing.write(path, draw_chart, block.chart)


def draw_chart(chart: Chart) -> Figure:
    """Draws a chart."""
    return _DRAWERS[type(chart)](chart)


def side_by_side(charts: list[Plot]) -> Figure:
    """Draws plots of the same series next to each other with one legend."""
    figure, single_axes = figures.canvas(5.5 * len(charts), 4)
    single_axes.remove()
    for position, chart in enumerate(charts, 1):
        _draw_series(figure.add_subplot(1, len(charts), position), chart)
    figures.legend(figure, 2 if len(charts) == 1 else 4)
    return figure


def _plot(chart: Plot) -> Figure:
    figure, axes = figures.canvas(5 if chart.square else 7, 4.6 if chart.square else 4)
    _draw_series(axes, chart)
    figures.legend(figure, 3)
    return figure


def _draw_series(axes: Axes, chart: Plot) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    if chart.log:
        drawing.set_scale(axes, np.concatenate([series.y for series in chart.series]))
    for series in chart.series:
        symbol = series.symbol if len(series.x) <= MAX_SYMBOLS or not series.dash else ""
        axes.plot(
            series.x,
            drawing.drawable(series.y),
            color=series.color,
            linestyle=LINES[series.dash],
            marker=MARKERS[symbol],
            markersize=5 if len(series.x) <= 5 * MAX_SYMBOLS else 2,
            label=drawing.label(series.name),
        )
    if chart.rates:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if chart.square:
        axes.set_xlim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.grid(alpha=0.3)


def _bars(chart: Bars) -> Figure:
    figure, axes = figures.canvas(7, 4)
    base = np.zeros(len(chart.x))
    for index, (name, values) in enumerate(chart.stacks.items()):
        heights = np.nan_to_num(drawing.drawable(values), posinf=0, neginf=0)
        color = COLORS[index % len(COLORS)]
        axes.bar(range(len(base)), heights, bottom=base, color=color, label=drawing.label(name))
        base += heights
    step = -(-len(chart.x) // 20)
    axes.set_xticks(range(0, len(base), step), [str(x) for x in chart.x[::step]])
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    figures.legend(figure, 4)
    return figure


def _matrix(chart: MatrixChart) -> Figure:
    columns, rows = list(map(drawing.label, chart.x)), list(map(drawing.label, chart.y))
    below, beside = (max(map(len, names), default=0) for names in (columns, rows))
    width = max(2.5 + 0.85 * len(columns), 4 + 0.09 * below) + 0.09 * beside
    height = 1.6 + (0.42 if chart.text else 0.25) * len(rows) + 0.05 * max(0, below - 12)
    figure, axes = figures.canvas(min(width, 20), min(height, 30))
    values = drawing.drawable(chart.values).reshape(len(chart.y), len(chart.x))
    high = brightest_value(chart)
    image = axes.imshow(values, cmap="cividis", vmin=chart.low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    if chart.text and values.size <= MAX_LABELED_CELLS:
        _write_cells(axes, chart, values, (chart.low + high) / 2)
    figure.colorbar(image, ax=axes, label=chart.unit)
    return figure


def _write_cells(axes: Axes, chart: MatrixChart, values: np.ndarray, middle: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > middle or np.isnan(value) else "white"
        axes.text(
            column, row, chart.text[row][column], ha="center", va="center", color=color, fontsize=8
        )


_DRAWERS: dict[type, Any] = {Plot: _plot, Bars: _bars, MatrixChart: _matrix}

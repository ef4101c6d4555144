"""The charts of a report as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.drawing import figures
from tffl.report.charts import LETTERED, POINTS
from tffl.report.document import COLORS, Bars, Block, Chart, Grid, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {
    **{"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^"},
    **{"x": "X", "cross": "P", "": ""},
}
LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "": ""}


def draw(block: Block, path: Path) -> None:
    """Writes the picture of a block that has a chart or heat maps.

    Raises:
      TfflError: It cannot be written.
    """
    if block.gallery is not None:
        from tffl.drawing.heat_maps import heat_maps

        figures.save(heat_maps(block.gallery.look), path)
    elif block.chart is not None:
        figures.save(picture(block.chart), path)


def picture(chart: Chart) -> Figure:
    """Draws a chart."""
    return _DRAWN[type(chart)](chart)


def side_by_side(charts: list[Plot]) -> Figure:
    """Draws plots of the same series next to each other, under one legend."""
    figure, first = figures.canvas(5.5 * len(charts), 4)
    first.remove()
    axes = [figure.add_subplot(1, len(charts), index + 1) for index in range(len(charts))]
    for plot, one in zip(charts, axes, strict=True):
        _fill(one, plot)
    handles: dict[str, Any] = {}
    for one in axes:
        found, names = one.get_legend_handles_labels()
        handles |= dict(zip(names, found, strict=True))
    columns = 2 if len(charts) == 1 else 4
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=columns, frameon=False
    )
    return figure


def _plot(chart: Plot) -> Figure:
    figure, axes = figures.canvas(5 if chart.square else 7, 4.6 if chart.square else 4)
    _fill(axes, chart)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _fill(axes: Axes, chart: Plot) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for series in chart.series:
        symbol = series.symbol if len(series.x) <= POINTS or not series.dash else ""
        axes.plot(
            series.x,
            series.y,
            color=series.color,
            linestyle=LINES[series.dash],
            marker=MARKERS[symbol],
            markersize=5 if len(series.x) <= 5 * POINTS else 2,
            # A dollar sign would begin a formula, a leading underscore hide the name.
            label=literal(series.name),
        )
    if chart.log:
        axes.set_yscale("symlog", linthresh=chart.linear)
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
        heights = np.nan_to_num(np.asarray(values, float))
        color = COLORS[index % len(COLORS)]
        axes.bar(range(len(base)), heights, bottom=base, color=color, label=literal(name))
        base += heights
    step = -(-len(chart.x) // 20)
    axes.set_xticks(range(0, len(base), step), [str(x) for x in chart.x[::step]])
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _grid(chart: Grid) -> Figure:
    width = 2.5 + 0.09 * max(map(len, chart.y), default=0) + 0.85 * len(chart.x)
    height = 1.6 + (0.42 if chart.text else 0.25) * len(chart.y)
    figure, axes = figures.canvas(min(width, 20), min(height, 30))
    values = np.asarray(chart.values, float).reshape(len(chart.y), len(chart.x))
    high = np.nanmax(values, initial=1e-9) if chart.high is None else chart.high
    image = axes.imshow(values, cmap="cividis", vmin=chart.low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(chart.x)), list(map(literal, chart.x)), rotation=30, ha="right")
    axes.set_yticks(range(len(chart.y)), list(map(literal, chart.y)))
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    if chart.text and values.size <= LETTERED:
        _write_cells(axes, chart, values, (chart.low + high) / 2)
    figure.colorbar(image, ax=axes, label=chart.unit)
    return figure


def _write_cells(axes: Axes, chart: Grid, values: np.ndarray, middle: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > middle or np.isnan(value) else "white"
        axes.text(
            column, row, chart.text[row][column], ha="center", va="center", color=color, fontsize=8
        )


def literal(text: str) -> str:
    """Returns text of a user as matplotlib shows it, without formulas or hidden names."""
    shown = text.replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


_DRAWN: dict[type, Any] = {Plot: _plot, Bars: _bars, Grid: _grid}

"""A picture of a split: who holds how many images of which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.drawing.guard import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#4477AA"
MAX_NUMBERS = 300
"""Cells, at most, that have room for their number."""
MAX_ROWS = 60
"""Rows, at most, that each have their label."""


def split_picture(
    counts: np.ndarray, holders: Sequence[str], class_names: Sequence[str], title: str
) -> Figure:
    """Draws a heat map of holders × classes, and beside it how many images each holds.

    Args:
      counts: int `[holders, classes]`.
      holders: Names of the rows, such as `"client 3"`.
      class_names: Names of the columns.
      title: What is seen.
    """
    from matplotlib.figure import Figure

    names = list(map(label, class_names))
    rows, classes = counts.shape
    longest = max(map(len, names))
    height = min(12.0, max(2.2, 0.28 * rows)) + 1.6 + 0.06 * max(0, longest - 12)
    size = (max(4.0, 0.45 * min(classes, 24)) + 3.5, height)
    figure = Figure(figsize=size, layout="constrained")
    map_axes, bar_axes = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    # One hue from white to dark: brightness alone tells values apart, and 0 is white.
    image = map_axes.imshow(counts, cmap="Blues", vmin=0, aspect="auto", interpolation="none")
    if counts.size <= MAX_NUMBERS:
        _write_numbers(map_axes, counts)
    step = -(-classes // 24)
    turned: dict[str, Any] = (
        {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if longest > 3 else {}
    )
    map_axes.set_xticks(range(0, classes, step), names[::step], fontsize=8, **turned)
    step = -(-rows // MAX_ROWS) if rows > MAX_ROWS else 1
    map_axes.set_yticks(range(0, rows, step), holders[::step], fontsize=8)
    map_axes.set_xlabel("class")
    map_axes.set_title(label(title, 100), fontsize=10)
    bar_axes.barh(range(rows), counts.sum(axis=1), color=BLUE, height=0.8 if rows <= 100 else 1.0)
    bar_axes.tick_params(axis="y", left=False, labelleft=False)
    bar_axes.tick_params(axis="x", labelsize=8)
    bar_axes.locator_params(axis="x", nbins=3)
    bar_axes.set_xlabel("images in all")
    figure.colorbar(image, ax=bar_axes, label="images of a class", fraction=0.3, aspect=30)
    return figure


def _write_numbers(axes: Axes, counts: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > 0.6 * counts.max() else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7)

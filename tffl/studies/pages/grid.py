"""A figure of matrices: attacks by defenses, with the numbers in the cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BRIGHTNESS = (0.299, 0.587, 0.114)
"""How bright red, green and blue appear."""


def draw_grids(
    panels: Mapping[str, pd.DataFrame], *, colors: str, limits: tuple[float, float], columns: int
) -> Figure:
    """Draws one matrix per panel.

    Args:
      panels: Title → numbers; NaN is a dash. The labels of rows and columns are shown.
      colors: Name of matplotlib's color map.
      limits: The numbers at the ends of the color map.
      columns: How many panels are side by side.
    """
    import matplotlib
    from matplotlib.figure import Figure

    tables = list(panels.values())
    wide, high = (max((table.shape[axis] for table in tables), default=1) for axis in (1, 0))
    lines = math.ceil(len(tables) / columns) or 1
    size = (columns * (0.35 * wide + 1.2) + 1, lines * (0.3 * high + 2))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    shades = matplotlib.colormaps[colors]
    image = None
    for axis, (title, table) in zip(axes, panels.items(), strict=False):
        values = table.to_numpy(float)
        image = axis.imshow(values, cmap=shades, vmin=limits[0], vmax=limits[1], aspect="auto")
        axis.set_title(title)
        names = list(map(str, table.columns))
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(table)), list(map(str, table.index)), fontsize=8)
        for (row, column), value in np.ndenumerate(values):
            words = "–" if math.isnan(value) else f"{value:.0f}".replace("-0", "0")
            shade = np.array(shades(image.norm(value))[:3])
            dark = not math.isnan(value) and shade @ BRIGHTNESS < 0.5
            ink = "white" if dark else "black"
            axis.text(column, row, words, ha="center", va="center", fontsize=6, color=ink)
    for axis in axes[len(tables) :]:
        axis.remove()
    if image is not None:
        figure.colorbar(image, ax=axes[: len(tables)].tolist(), shrink=0.5)
    return figure

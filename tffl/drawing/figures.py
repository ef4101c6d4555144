"""Pictures of a run, in colors that color-blind readers can tell apart, repeated by shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.measured import measured
from tffl.drawing import guard as drawing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GRAY = "#4477AA", "#CC3311", "#777777"


def write_run(folder: Path, rounds: pd.DataFrame, clients: pd.DataFrame) -> None:
    """Writes `rounds.png` and, where the defense has scores, `scores.png`.

    Args:
      folder: Where to.
      rounds: The columns of `rounds.csv`.
      clients: The columns of `clients.csv`.

    Raises:
      TfflError: A picture cannot be written.
    """
    drawing.write(folder / "rounds.png", curves, rounds)
    if clients["score"].notna().any():
        drawing.write(folder / "scores.png", scores, rounds, clients)


def curves(rounds: pd.DataFrame) -> Figure:
    """Draws accuracy and attack success by round."""
    figure, axes = canvas(7, 4)
    _line(axes, rounds, "accuracy", BLUE, "o", "accuracy")
    if rounds["attack_success"].notna().any():
        _line(axes, rounds, "attack_success", RED, "s", "attack success")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("round")
    finish(figure, axes)
    return figure


def scores(rounds: pd.DataFrame, clients: pd.DataFrame, label: str = "score") -> Figure:
    """Draws each client's score by round, malicious ones in red, and the threshold.

    Infinite scores are triangles at the edges.

    Args:
      rounds: With `round` and `threshold`.
      clients: With `round`, `malicious` and `score`.
      label: What the scores are.
    """
    figure, axes = canvas(7, 4)
    malicious = clients["malicious"].to_numpy(bool)
    values, places = clients["score"].to_numpy(float), clients["round"].to_numpy()
    drawing.set_scale(axes, values)
    for mine, color, marker, who in (
        (~malicious, BLUE, "o", "benign"),
        (malicious, RED, "X", "malicious"),
    ):
        style: dict[str, Any] = {"s": 26, "color": color}
        if (mine & np.isfinite(values)).any():
            shown = drawing.drawable(values[mine])
            axes.scatter(places[mine], shown, marker=marker, label=who, **style)
        mark_infinite(axes, places[mine], values[mine], **style)
    if rounds["threshold"].notna().any():
        judged = rounds[rounds["round"].isin(places)]  # others were skipped
        levels = drawing.drawable(judged["threshold"])
        axes.plot(judged["round"], levels, "--", color=GRAY, label="threshold")
    if np.isinf(values).any():
        axes.margins(y=0.15)
        axes.scatter([], [], marker="^", color=GRAY, label="infinite")
    axes.set_xlabel("round")
    axes.set_ylabel(label)
    finish(figure, axes)
    return figure


def mark_infinite(axes: Axes, places: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """Marks infinite values by triangles at the upper edge, and negative ones at the lower.

    Args:
      axes: Where.
      places: Horizontal positions `[n]`.
      values: float `[n]`.
      style: Of the marks.
    """
    for chosen, height, marker in (
        (np.isposinf(values), 0.95, "^"),
        (np.isneginf(values), 0.05, "v"),
    ):
        if chosen.any():
            heights = np.full(int(chosen.sum()), height)
            shape = {"marker": marker, **style}
            axes.scatter(places[chosen], heights, transform=axes.get_xaxis_transform(), **shape)


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[int], title: str, label: str
) -> Figure:
    """Draws values in 0 … 1 around a neutral 0.5: orange below, purple above, gray undefined.

    Args:
      values: Float `[rows, columns]`, NaN where undefined.
      rows: Row labels; the picture grows with them, so that each stays readable.
      columns: Round numbers.
      title: What is seen.
      label: What the colors mean.
    """
    import matplotlib

    rows = [drawing.label(row, 80) for row in rows]
    width = 0.085 * max(map(len, rows), default=0) + min(12.0, max(3.0, 0.3 * len(columns))) + 1.2
    figure, axes = canvas(width, 0.17 * len(rows) + 1.4)
    colors = matplotlib.colormaps["PuOr"].with_extremes(bad="#DDDDDD")
    shares = np.clip(values, 0, 1)
    image = axes.imshow(shares, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="none")
    step = -(-len(columns) // 25)
    axes.set_xticks(range(0, len(columns), step), [str(c) for c in columns[::step]], fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("round")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label=label, fraction=0.05, aspect=30)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a picture atomically; one that cannot be rendered is a warning.

    Raises:
      TfflError: It cannot be written.
    """
    drawing.write(path, lambda: figure)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Makes a figure without pyplot, whose windows and global state a library should not touch.

    Args:
      width: In inches.
      height: In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _line(
    axes: Axes, rounds: pd.DataFrame, column: str, color: str, marker: str, label: str
) -> None:
    known = measured(rounds, column)
    axes.plot(known["round"], known[column], color=color, marker=marker, markersize=4, label=label)


def finish(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """Puts the legend where it hides no point, and marks whole rounds only."""
    from matplotlib.ticker import MaxNLocator

    legend(figure, columns)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(figure: Figure, columns: int, fontsize: int = 10) -> None:
    """Puts a legend of all axes above them; the figure grows with it.

    Args:
      figure: Whose axes have the labels.
      columns: At most; long names have fewer.
      fontsize: In points.
    """
    pairs = (axes.get_legend_handles_labels() for axes in figure.axes)
    handles = {name: handle for found in pairs for handle, name in zip(*found, strict=True)}
    if not handles:
        return
    room = int(figure.get_figwidth() * 110 / fontsize)  # letters side by side
    columns = max(1, min(columns, room // (max(map(len, handles)) + 6)))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + 0.02 * fontsize * max(0, rows - 2))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=columns,
        frameon=False, fontsize=fontsize,
    )  # fmt: skip

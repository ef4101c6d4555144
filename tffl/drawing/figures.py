"""Pictures of a run. Colors are told apart by color-blind readers, and shapes repeat them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.core.atomic import replacing

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
    save(curves(rounds), folder / "rounds.png")
    if clients["score"].notna().any():
        save(scores(rounds, clients), folder / "scores.png")


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

    Args:
      rounds: With `round` and `threshold`.
      clients: With `round`, `malicious` and `score`.
      label: What the scores are.
    """
    figure, axes = canvas(7, 4)
    malicious = clients["malicious"].astype(bool)
    for chosen, color, marker, who in (
        (~malicious, BLUE, "o", "benign"),
        (malicious, RED, "X", "malicious"),
    ):
        part = clients[chosen]
        if len(part):
            axes.scatter(part["round"], part["score"], s=26, c=color, marker=marker, label=who)
    if rounds["threshold"].notna().any():
        axes.plot(rounds["round"], rounds["threshold"], "--", color=GRAY, label="threshold")
    axes.set_xlabel("round")
    axes.set_ylabel(label)
    finish(figure, axes)
    return figure


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

    width = 0.085 * max(map(len, rows)) + min(12.0, max(3.0, 0.3 * len(columns))) + 1.2
    figure, axes = canvas(width, 0.17 * len(rows) + 1.4)
    colors = matplotlib.colormaps["PuOr"].with_extremes(bad="#DDDDDD")
    image = axes.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="none")
    step = -(-len(columns) // 25)
    axes.set_xticks(range(0, len(columns), step), [str(c) for c in columns[::step]], fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("round")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label=label, fraction=0.05, aspect=30)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a picture atomically.

    Raises:
      TfflError: It cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


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
    axes.plot(
        rounds["round"], rounds[column], color=color, marker=marker, markersize=4, label=label
    )


def finish(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """Puts the legend where it hides no point, and marks whole rounds only."""
    from matplotlib.ticker import MaxNLocator

    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))

"""Pictures of an audited run: the paper's Figures 5, 6, 9 and 10, and who was how accurate.

audit_rounds    overall and poisoning accuracy by round, d_iter marked
audit_clients   audit accuracy of every client by round, with θ
audit_images    audit images by round, labeled by the vote, next to auxiliary ones
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.verdict import AuditImages
from tffl.drawing import guard as drawing
from tffl.drawing.figures import GRAY, curves, scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ROWS, COLUMNS = 6, 12
"""Rounds and images of each in `audit_images`."""


def write(
    folder: Path,
    rounds: pd.DataFrame,
    clients: pd.DataFrame,
    shown: Mapping[int, AuditImages],
    from_round: int,
) -> list[Path]:
    """Writes the pictures of a run with `gan-audit`, and returns the paths of those there are.

    Args:
      folder: Where to.
      rounds: The columns of `rounds.csv`.
      clients: The columns of `clients.csv`.
      shown: Round → its audit, for rounds that were audited.
      from_round: d_iter.

    Raises:
      TfflError: A picture cannot be written.
    """
    draw: dict[str, tuple[Any, ...]] = {
        "rounds": (by_round, rounds, from_round),
        "clients": (by_client, rounds, clients),
    }
    if shown:
        draw["images"] = (by_image, shown)
    paths = {folder / f"audit_{name}.png": draw[name] for name in draw}
    return [path for path, drawn in paths.items() if drawing.write(path, *drawn)]


def by_round(rounds: pd.DataFrame, from_round: int) -> Figure:
    """Draws overall and poisoning accuracy (the attack's success) by round."""
    figure = curves(rounds)
    axes = figure.axes[0]
    axes.axvline(from_round - 0.5, color=GRAY, linestyle="--")
    axes.text(from_round - 0.4, 0.5, "audited from here on", color=GRAY, fontsize=8)
    return figure


def by_client(rounds: pd.DataFrame, clients: pd.DataFrame) -> Figure:
    """Draws every client's audit accuracy by round, malicious ones in red, and θ."""
    judged = clients[np.isfinite(clients["score"])]
    return scores(
        rounds.assign(threshold=1 - rounds["threshold"]),
        judged.assign(score=1 - judged["score"]),
        "audit accuracy",
    )


def by_image(shown: Mapping[int, AuditImages]) -> Figure:
    """Draws audit images of some rounds with their voted labels; first, auxiliary ones, if any.

    Args:
      shown: Round → its audit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numbers = sorted(shown)
    picked = [numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, ROWS).astype(int))]
    rows: list[tuple[str, np.ndarray, np.ndarray | None]] = [
        (f"round {number}", shown[number].images, shown[number].labels) for number in picked
    ]
    last = shown[numbers[-1]]
    if last.auxiliary is not None:
        rows.insert(0, ("auxiliary", last.auxiliary, None))
    figure = Figure(figsize=(0.7 * COLUMNS + 1, 0.85 * len(rows) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for line, (title, images, labels) in zip(axes, rows, strict=True):
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        chosen = np.linspace(0, len(images) - 1, COLUMNS).astype(int)
        for axis, place in zip(line, chosen, strict=True):
            image = images[place]
            axis.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray")
            axis.set_xticks([])
            axis.set_yticks([])
            if labels is not None:
                axis.set_title(f"{labels[place]}", fontsize=7, pad=2)
    return figure

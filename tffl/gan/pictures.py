"""Pictures of an audited run: the paper's Figures 5, 6, 9 and 10, and who was how accurate.

audit_rounds    overall and poisoning accuracy by round, d_iter marked
audit_clients   audit accuracy of every client by round, with θ
audit_images    audit images by round, labeled by the vote, next to auxiliary ones
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.record import drawing
from tffl.record.figures import GRAY, curves, scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tffl.record.run_directory import RunDirectory

ROWS, COLUMNS = 6, 12
"""Rounds and images of each in `audit_images`."""


def write(directory: RunDirectory, from_round: int) -> list[Path]:
    """Writes the pictures of a run into its `figures/`, and returns the paths of those there are.

    Args:
      directory: Of a finished run with `gan-audit`.
      from_round: d_iter.

    Raises:
      TfflError: A file is damaged, or a picture cannot be written.
    """
    rounds, clients = directory.frames()
    draw: dict[str, tuple[Any, ...]] = {
        "rounds": (by_round, rounds, from_round),
        "clients": (by_client, rounds, clients),
    }
    shown = {
        int(number): directory.pictures(int(number))
        for number in rounds["round"]
        if number >= from_round
    }
    shown = {number: seen for number, seen in shown.items() if "audit_images" in seen}
    if shown:
        draw["images"] = (by_image, shown)
    paths = {directory.path / "figures" / f"audit_{name}.png": draw[name] for name in draw}
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


def by_image(shown: dict[int, dict[str, np.ndarray]]) -> Figure:
    """Draws audit images of some rounds with their voted labels; first, auxiliary ones, if any.

    Args:
      shown: Round → what the run has kept of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numbers = sorted(shown)
    picked = [numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, ROWS).astype(int))]
    rows: list[tuple[str, np.ndarray, np.ndarray | None]] = [
        (f"round {number}", shown[number]["audit_images"], shown[number]["audit_labels"])
        for number in picked
    ]
    last = shown[numbers[-1]]
    if "auxiliary_images" in last:
        rows.insert(0, ("auxiliary", last["auxiliary_images"], None))
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

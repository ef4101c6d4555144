"""How colluders who agree on one row send different ones, and still move the mean as agreed.

    own:    Δ_j ← Δ_j + (x − c)             x the crafted row, c the mean of the honest updates
    noise:  Δ_j ← x + s·σ·N(0, 1)           σ their standard deviation, per coordinate

With `own` the rows have the spread of honest updates, and their mean is that of the colluders' own
updates plus the common shift. Everything is computed over the trainable columns; in the others,
rows stay as the clients' training left them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tffl.attacks.statistics import generators, mean, per_coordinate
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def around_own(crafted: np.ndarray, own: Updates, seen: Updates) -> np.ndarray:
    """Returns each colluder's own update, shifted as the crafted row is from the honest mean.

    Args:
      crafted: float32 `[1, d]`, or `[m, d]`.
      own: The m colluders' updates as trained.
      seen: The updates that the attackers treat as honest.

    Returns:
      float32 `[m, d]`.
    """
    center = mean(seen)
    rows = np.array(np.broadcast_to(crafted, (len(own), own.layout.size)))
    with np.errstate(over="ignore", invalid="ignore"):
        for position, row in enumerate(rows):
            row[:] = own.row(position) + (row.astype(np.float64) - center)
    return rows


def with_noise(
    crafted: np.ndarray, own: Updates, seen: Updates, share: float, adversary: Adversary
) -> np.ndarray:
    """Returns the crafted row plus Gaussian noise of each colluder's own.

    Args:
      crafted: float32 `[1, d]`, or `[m, d]`.
      own: The m colluders' updates, for their ids and the round.
      seen: The updates that the attackers treat as honest.
      share: Standard deviation of the noise, as a share of that of `seen` in each coordinate.
      adversary: Its seed draws the noise.

    Returns:
      float32 `[m, d]`.
    """
    scale = share * per_coordinate(seen, lambda part: part.std(axis=0))[0].astype(np.float64)
    rows = np.array(np.broadcast_to(crafted, (len(own), own.layout.size)))
    with np.errstate(over="ignore", invalid="ignore"):
        for row, source in zip(rows, generators(own, adversary, "spread"), strict=True):
            row[:] = row + scale * source.standard_normal(len(row))
    return rows

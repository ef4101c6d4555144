"""Median distance: updates far from the coordinate-wise median are left out.

score_i = ‖u_i − median u‖;  flagged: score_i > factor · median score
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.updates import Updates
from tffl.defenses import Detector, Server


def median_distances(rows: np.ndarray) -> np.ndarray:
    """Returns each row's distance to the coordinate-wise median.

    Args:
      rows: float32 `[n, d]`, finite, `n >= 1`.

    Returns:
      float64 `[n]`.

    >>> median_distances(np.array([[0.0, 1.0], [0.0, 1.0], [3.0, 5.0]]))
    array([0., 0., 5.])
    """
    return np.linalg.norm(rows - np.median(rows.astype(np.float64), axis=0), axis=1)


@dataclass(frozen=True)
class MedianDistance(Detector):
    """Rejects updates that are far from the coordinate-wise median.

    Attributes:
      factor: How many times as far as the median client.
    """

    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0

    reference: ClassVar[str] = "tffl's example of a plug-in"

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns float64 `[n]`; rows with NaN or infinity get infinity, and move no median."""
        finite = updates.finite()
        scores = np.full(len(updates), np.inf)
        if finite.any():
            scores[finite] = median_distances(updates.select(finite).deltas)
        return scores

    def threshold(self, scores: np.ndarray) -> float:
        """Returns `factor` times the median of the finite scores; NaN if there are none."""
        known = scores[np.isfinite(scores)]
        return self.factor * float(np.median(known)) if len(known) else float("nan")

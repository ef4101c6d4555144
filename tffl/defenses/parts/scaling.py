"""Means of updates that are shortened or stretched first."""

from __future__ import annotations

import numpy as np

from tffl.core.updates import Updates


def scaled_mean(updates: Updates, shares: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns Σ share_i · factor_i · Δ_i, float32 `[d]`.

    Columns that no gradient trains are averaged without the factors: a training step may be
    shortened, but the scaled change of a moving variance could make it negative.

    Args:
      updates: Rows whose share is 0 may hold anything.
      shares: float64 `[n]`, summing to 1, or all 0.
      factors: float64 `[n]`, at least 0 and finite where the share is not 0.
    """
    trainable = updates.layout.trainable
    scaled = updates.mean(shares * factors)
    return scaled if trainable.all() else np.where(trainable, scaled, updates.mean(shares))

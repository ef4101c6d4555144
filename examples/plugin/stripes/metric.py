"""How often the two diagonals are taken for each other."""

from __future__ import annotations

import numpy as np

from stripes.dataset import DIRECTIONS

RISING, FALLING = DIRECTIONS.index("rising"), DIRECTIONS.index("falling")


def diagonal_confusion(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of diagonal stripes whose direction the model mistakes for the other diagonal.

    Args:
      labels: int32 `[N]`.
      logits: float32 `[N, 4]`; rows are not finite where the model is ruined.

    Returns:
      0 … 1; NaN if there are no diagonal stripes.

    >>> diagonal_confusion(np.array([2, 3, 0]), np.eye(4)[[3, 3, 2]])
    0.5
    """
    predicted = logits.argmax(axis=1)
    diagonal = np.isin(labels, (RISING, FALLING))
    mistaken = np.isin(predicted, (RISING, FALLING)) & (predicted != labels)
    return float(mistaken[diagonal].mean()) if diagonal.any() else float("nan")

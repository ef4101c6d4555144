"""The mean cross-entropy of many models at once."""

from __future__ import annotations

import numpy as np


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns each model's mean cross-entropy, float64 `[n]`; NaN stays NaN.

    Args:
      logits: `[n, p, classes]`.
      labels: int `[p]`.

    >>> mean_cross_entropy(np.array([[[0.0, 0.0], [50.0, 0.0]]]), np.array([0, 1])).round(3)
    array([25.347])
    """
    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=-1))
    right = np.take_along_axis(shifted, labels[None, :, None], axis=-1)[..., 0]
    return (total - right).mean(axis=1)

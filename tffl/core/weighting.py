"""The weight of a client in an average, from the samples that it claims, which nobody can check.

claimed   n_k, as in FedAvg: a false claim can dominate the average
uniform   1
capped    min(n_k, 3 · median n)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Weighting: TypeAlias = Literal["claimed", "uniform", "capped"]

CAP = 3.0
"""Largest weight of a claim, relative to the median claim."""


def weighted_counts(counts: np.ndarray, weighting: Weighting) -> np.ndarray:
    """Returns the sample counts that weigh the average, int64 `[n]`.

    Args:
      counts: Claimed samples, int64 `[n]`, at least 0.
      weighting: See above.

    >>> weighted_counts(np.array([10, 20, 20, 1000]), "capped")
    array([10, 20, 20, 60])
    """
    if weighting == "uniform":
        return np.ones_like(counts)
    if weighting == "capped" and len(counts):
        return np.minimum(counts, np.ceil(CAP * np.median(counts)).astype(np.int64))
    return counts

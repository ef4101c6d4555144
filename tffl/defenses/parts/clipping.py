"""Clipping: a vector that is longer than allowed is shortened, not thrown away."""

from __future__ import annotations

import numpy as np


def clip_factors(lengths: np.ndarray, limit: float) -> np.ndarray:
    """Returns min(1, limit / length), float64 `[n]`; 1 where the length is 0.

    >>> clip_factors(np.array([0.0, 1.0, 4.0]), limit=2.0)
    array([1. , 1. , 0.5])
    """
    return np.divide(limit, lengths, out=np.ones_like(lengths), where=lengths > limit)


def excess(lengths: np.ndarray, limit: float) -> np.ndarray:
    """Returns length / limit, float64 `[n]`; against a limit of 0, 0 or inf.

    >>> excess(np.array([0.0, 1.0, 4.0]), limit=2.0), excess(np.array([0.0, 1.0]), limit=0.0)
    (array([0. , 0.5, 2. ]), array([ 0., inf]))
    """
    if limit > 0:
        return lengths / limit
    return np.where(lengths > 0, np.inf, 0.0)

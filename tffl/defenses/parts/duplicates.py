"""Rows of nearly the same direction: colluders who send one vector, each at its own length.

ν_i = min_{j ≠ i} ‖x_i/‖x_i‖ − x_j/‖x_j‖‖,   a near-duplicate: ν_i < q · median ν
"""

from __future__ import annotations

import math

import numpy as np

from tffl.core import geometry

NEAREST = 1e-3
"""Neighbors nearer than this, relative to the median, count as that near: results stay finite."""

SAME = 1e-7
"""Directions nearer than this are the same: float32 cannot tell them apart."""


def nearness(products: np.ndarray) -> np.ndarray:
    """Returns how many times nearer than usual the nearest direction is, float64 `[n]`.

    All zeros if at least half of the rows have a near-duplicate: then the median is one, too.

    Args:
      products: Inner products of all pairs, float64 `[n, n]`; a zero row is near to no other.

    >>> angles = np.radians([0.0, 20.0, 50.0, 52.0, 90.0])
    >>> nearness(np.cos(angles[:, None] - angles)).round(2)
    array([1.  , 1.  , 9.95, 9.95, 0.53])
    """
    nearest = _apart(products).min(axis=1)
    usual = np.median(nearest)
    if not SAME < usual < math.inf:
        return np.zeros(len(nearest))
    return usual / np.maximum(nearest, NEAREST * usual)


def firsts(products: np.ndarray, share: float) -> np.ndarray:
    """Returns for each row the first of its near-duplicates, which may be itself, int64 `[n]`.

    Args:
      products: As above.
      share: q, how near, relative to the median distance of nearest directions.

    >>> angles = np.radians([0.0, 20.0, 50.0, 52.0, 90.0])
    >>> firsts(np.cos(angles[:, None] - angles), share=0.2)
    array([0, 1, 2, 2, 4])
    """
    apart = _apart(products)
    usual = np.median(apart.min(axis=1))
    near = apart < (share * usual if SAME < usual < math.inf else 0)
    np.fill_diagonal(near, True)
    return near.argmax(axis=1)


def _apart(products: np.ndarray) -> np.ndarray:
    """Returns the distances of all directions, infinite on the diagonal."""
    apart = np.sqrt(2 - 2 * geometry.cosines(products))
    np.fill_diagonal(apart, np.inf)
    return apart

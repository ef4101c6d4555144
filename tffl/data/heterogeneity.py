"""How much clients differ: in the shares of their classes, and in size."""

from __future__ import annotations

import numpy as np


def label_distance(counts: np.ndarray) -> float:
    """Returns the mean total-variation distance of clients' classes to those of all of them.

        mean over clients of  ½ Σ_c |p_client(c) − p(c)|

    It is 0 where all clients have the same shares, and goes to 1 − 1/C where each has one class.

    Args:
      counts: int `[clients, classes]`; clients without samples do not count.

    >>> label_distance(np.array([[4, 0], [0, 4]])), label_distance(np.array([[2, 2], [9, 9]]))
    (0.5, 0.0)
    """
    held = counts[counts.sum(axis=1) > 0]
    shares = held / held.sum(axis=1, keepdims=True)
    whole = held.sum(axis=0) / held.sum()
    return float(np.abs(shares - whole).sum(axis=1).mean() / 2)


def size_spread(counts: np.ndarray) -> float:
    """Returns the standard deviation of clients' sizes as a share of their mean.

    >>> size_spread(np.array([[1, 0], [2, 1]]))
    0.5
    """
    sizes = counts.sum(axis=1)
    return float(sizes.std() / sizes.mean())

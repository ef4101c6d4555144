"""The largest entries of each update, and how far a value is from the median of all clients."""

from __future__ import annotations

import numpy as np

from tffl.core.updates import Updates


def largest_magnitudes(updates: Updates, columns: np.ndarray, count: int) -> np.ndarray:
    """Returns the count-th largest |Δ_ij| of each client i, float32 `[n]`.

    Args:
      updates: Finite rows.
      columns: bool `[d]`, which columns j count.
      count: From 1 to the number of those columns.

    >>> updates = Updates.of_rows(np.array([[3.0, -5.0, 1.0], [0.0, 2.0, -9.0]]))
    >>> largest_magnitudes(updates, np.array([True, True, False]), count=1)
    array([5., 2.], dtype=float32)
    """

    def of_row(row: int) -> np.float32:
        magnitudes = np.abs(updates.row(row)[columns])
        place = len(magnitudes) - count
        magnitudes.partition(place)
        return magnitudes[place]

    return np.fromiter(updates.map_rows(of_row), np.float32, len(updates))


def median_distances(values: np.ndarray, resolution: float) -> np.ndarray:
    """Returns |x_i − median| / standard deviation, float64 `[n]`: the MZ-score of its authors.

    The standard deviation is not a robust one: outliers enlarge it, and m of n clients that agree
    are never farther than √(n / m) away.

    Args:
      values: x, float64 `[n]`.
      resolution: Standard deviations up to this are rounding: all scores are 0 then.

    >>> median_distances(np.array([1.0, 2.0, 3.0, 4.0, 10.0]), 0.0).round(4)
    array([0.6325, 0.3162, 0.    , 0.3162, 2.2136])
    """
    spread = values.std()
    if spread <= resolution:
        return np.zeros(len(values))
    return np.abs(values - np.median(values)) / spread

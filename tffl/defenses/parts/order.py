"""Order statistics of every coordinate, block by block.

A block is transposed, so that the n values of a coordinate lie side by side, and sorted whole:
NumPy sorts short contiguous rows of float32 with vector instructions, which takes a quarter of the
time in which `np.median` selects from them, and no more memory than a few blocks.
"""

from __future__ import annotations

import numpy as np

from tffl.core.updates import Updates

WIDTH = 1 << 12
"""Columns to sort at a time: those of 100 clients fit into a core's cache."""


def ranked(rows: np.ndarray) -> np.ndarray:
    """Returns the values of each column in ascending order, `[width, n]`, a copy.

    Args:
      rows: Finite, `[n, width]`.

    >>> ranked(np.array([[3.0, 1.0], [2.0, 5.0], [9.0, 0.0]]))
    array([[2., 3., 9.],
           [0., 1., 5.]])
    """
    result = np.array(rows.T, order="C")
    result.sort(axis=1)
    return result


def middle(columns: slice, rows: np.ndarray) -> np.ndarray:
    """Returns the median of each column, float64 `[width]`; of an even number, the mean of two.

    Args:
      columns: Which ones they are, for those who ask for a point; it does not matter here.
      rows: Finite, `[n, width]`.
    """
    n, ordered = len(rows), ranked(rows)
    return ordered[:, (n - 1) // 2 : n // 2 + 1].mean(axis=1, dtype=np.float64)


def medians(updates: Updates) -> np.ndarray:
    """Returns the median of each column, float32 `[d]`.

    Args:
      updates: Finite rows, at least one.

    >>> medians(Updates.of_rows(np.array([[3.0, 1.0], [2.0, 5.0], [9.0, 0.0], [4.0, 0.0]])))
    array([3.5, 0.5], dtype=float32)
    """

    def block(columns: slice) -> np.ndarray:
        return middle(columns, updates.block(columns))

    result = np.empty(updates.layout.size, dtype=np.float32)
    blocks = updates.map_columns(block, size=WIDTH)
    for columns, values in zip(updates.columns(size=WIDTH), blocks, strict=True):
        result[columns] = values
    return result


def trims(rows: np.ndarray, ordered: np.ndarray, count: int) -> np.ndarray:
    """Counts the columns in which each row is among the `count` smallest or largest.

    Where equal values leave open which rows these are, each of those rows counts by its chance to
    be one of them. So the result sums to 2·count per column, and position plays no part.

    Args:
      rows: Finite, `[n, width]`.
      ordered: `ranked(rows)`.
      count: b, with n > 2b.

    Returns:
      float64 `[n]`.

    >>> rows = np.array([[1.0], [1.0], [2.0], [3.0], [4.0]])
    >>> trims(rows, ranked(rows), count=1)
    array([0.5, 0.5, 0. , 0. , 1. ])
    """
    if count == 0:
        return np.zeros(len(rows))
    lowest, highest = ordered[:, count].copy(), ordered[:, -count - 1].copy()  # of those kept
    outside = (rows < lowest) | (rows > highest)
    total = np.array([np.count_nonzero(row) for row in outside], dtype=np.float64)
    for edge, last, dropped in (
        (lowest, ordered[:, count - 1], slice(count)),
        (highest, ordered[:, -count], slice(-count, None)),
    ):
        tied = np.flatnonzero(last == edge)
        if len(tied) == 0:
            continue
        equal = ordered[tied] == edge[tied, None]
        chance = np.zeros(len(edge))
        chance[tied] = equal[:, dropped].sum(axis=1) / equal.sum(axis=1)
        total += np.einsum("ij,j->i", rows == edge, chance)
    return total


def trimmed(updates: Updates, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Averages each coordinate without its `count` smallest and `count` largest values.

    Args:
      updates: Finite rows.
      count: b, with n > 2b.

    Returns:
      The mean of the n − 2b values left in each column, float32 `[d]`, and the share of trainable
      columns in which each row was trimmed, float64 `[n]`; see `trims` for ties.
    """
    n, trainable = len(updates), updates.layout.trainable

    def block(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        rows, counted = updates.block(columns), trainable[columns]
        ordered = ranked(rows)
        kept = ordered[:, count : n - count].astype(np.float64)
        mean = np.einsum("ij->i", kept) / kept.shape[1]  # `sum` is slow along short rows
        if counted.all():
            return mean, trims(rows, ordered, count)
        return mean, trims(rows[:, counted], ordered[counted], count)

    aggregate, total = np.empty(updates.layout.size, dtype=np.float32), np.zeros(n)
    blocks = updates.map_columns(block, size=WIDTH)
    for columns, (mean, trims_here) in zip(updates.columns(size=WIDTH), blocks, strict=True):
        aggregate[columns] = mean
        total += trims_here
    return aggregate, total / trainable.sum()

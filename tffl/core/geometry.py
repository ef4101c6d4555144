"""Distances and angles between updates, over the trainable columns, in float64.

‖x‖² + ‖y‖² − 2·xᵀy loses all digits in float32 when x and y are close, so products are computed in
float64. Where only differences matter, a common vector is subtracted from the rows first. It must
not be the mean: one row of 1e30 would move the mean so far away that rounding would hide the
distances between all other rows.

Products of many columns and few rows are slow when BLAS divides each of them among threads. Hence
one thread computes each block, and its bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tffl.core.updates import Updates

WIDTH = 1 << 12
"""Columns to multiply at a time: those of 100 clients fit into the cache of a core."""

RESOLUTION = 1e-14
"""Relative size below which a squared distance is only rounding, and counts as 0."""


def products(updates: Updates) -> np.ndarray:
    """Returns the inner products of all pairs of updates, float64 `[n, n]`.

    Args:
      updates: Finite rows.
    """
    return _gram(updates, lambda _, rows: rows.astype(np.float64))


def centered_products(updates: Updates) -> np.ndarray:
    """Returns the inner products of all pairs of Δ_i − c, float64 `[n, n]`.

    c is a vector between most of the updates, however far away the others are.

    Args:
      updates: Finite rows.
    """
    return _gram(updates, lambda _, rows: _centered(rows.astype(np.float64)))


def products_from(updates: Updates, point: Callable[[slice, np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns the inner products of all pairs of Δ_i − p, float64 `[n, n]`.

    Args:
      updates: Finite rows.
      point: (columns, the rows in them) → p there, `[width]`.
    """
    return _gram(updates, lambda columns, rows: rows - point(columns, rows).astype(np.float64))


def squared_distances(updates: Updates) -> np.ndarray:
    """Returns ‖Δ_i − Δ_j‖² for all pairs, float64 `[n, n]`, symmetric, zeros on the diagonal.

    Args:
      updates: Finite rows; identical ones are at distance 0.
    """
    gram = centered_products(updates)
    squares = np.diag(gram)
    sums = squares[:, None] + squares
    distances = sums - (gram + gram.T)
    distances[distances < RESOLUTION * sums] = 0
    np.fill_diagonal(distances, 0)
    return distances


def _gram(updates: Updates, prepare: Callable[[slice, np.ndarray], np.ndarray]) -> np.ndarray:
    """Sums the products of all pairs of rows over blocks, each prepared and in float64 then."""
    from threadpoolctl import threadpool_limits

    def block(columns: slice) -> np.ndarray:
        part = prepare(columns, updates.block(columns))
        return part @ part.T

    total = np.zeros((len(updates), len(updates)))
    with threadpool_limits(1, user_api="blas"):
        for gram in updates.map_columns(block, trainable=True, size=WIDTH):
            total += gram
    return total


def _centered(part: np.ndarray) -> np.ndarray:
    """Subtracts, in place, the mean of the rows that are not longer than the median."""
    squares = np.einsum("ij,ij->i", part, part)
    part -= part[squares <= np.median(squares)].mean(axis=0)
    return part


def squared_distances_to(updates: Updates, point: np.ndarray) -> np.ndarray:
    """Returns ‖Δ_i − point‖², float64 `[n]`, for a point `[d]`."""

    def block(columns: slice) -> np.ndarray:
        part = updates.block(columns) - point[columns].astype(np.float64)
        return np.einsum("ij,ij->i", part, part)

    return _total(updates, block)


def products_with(updates: Updates, vector: np.ndarray) -> np.ndarray:
    """Returns Δ_iᵀ·vector, float64 `[n]`, for a vector `[d]`."""

    def block(columns: slice) -> np.ndarray:
        part = updates.block(columns).astype(np.float64)
        return np.einsum("ij,j->i", part, vector[columns].astype(np.float64))

    return _total(updates, block)


def _total(updates: Updates, block: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Sums the results of a function over all blocks of trainable columns, float64 `[..., n]`."""
    blocks = updates.map_columns(block, trainable=True, size=WIDTH)
    return sum(blocks, np.zeros(len(updates)))


def norm(vector: np.ndarray, updates: Updates) -> float:
    """Returns the Euclidean norm of a vector `[d]` over the trainable columns of `updates`."""
    spans = updates.layout.trainable_spans
    squares = (np.square(vector[span], dtype=np.float64).sum() for span in spans)
    return float(np.sqrt(sum(squares)))


def cosines(gram: np.ndarray) -> np.ndarray:
    """Returns cosines from inner products, float64 `[n, n]`; 0 where a row is zero."""
    norms = np.sqrt(np.diag(gram))
    scale = np.outer(norms, norms)
    return np.clip(np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0), -1, 1)


def cosines_with(updates: Updates, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each update's cosine to a vector `[d]`, 0 where either is zero, and its norm.

    Args:
      updates: Finite rows.
      vector: Finite.

    Returns:
      Both float64 `[n]`.
    """

    def block(columns: slice) -> np.ndarray:
        part, other = updates.block(columns).astype(np.float64), vector[columns].astype(np.float64)
        return np.stack([np.einsum("ij,j->i", part, other), np.einsum("ij,ij->i", part, part)])

    products, squares = _total(updates, block)
    norms = np.sqrt(squares)
    scale = norms * norm(vector, updates)
    cosine = np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(cosine, -1, 1), norms

"""Distances and angles between updates, over the trainable columns, in float64.

‖x‖² + ‖y‖² − 2·xᵀy loses all digits in float32 when x and y are close, so products are computed
in float64, and of rows from which a common vector has been subtracted where only differences count.
"""

from __future__ import annotations

import numpy as np

from tffl.federated.updates import Updates


def products(updates: Updates, center: bool = False) -> np.ndarray:
    """Returns the inner products of all pairs of updates, float64 `[n, n]`.

    Args:
      updates: Finite rows.
      center: Subtract the clients' mean from each of them first.
    """
    total = np.zeros((len(updates), len(updates)))
    for columns in updates.columns(trainable=True):
        part = updates.block(columns).astype(np.float64)
        if center:
            part -= part.mean(axis=0)
        total += part @ part.T
    return total


def squared_distances(updates: Updates) -> np.ndarray:
    """Returns ‖Δ_i − Δ_j‖² for all pairs, float64 `[n, n]`, symmetric, zeros on the diagonal."""
    gram = products(updates, center=True)
    squares = np.diag(gram)
    distances = squares[:, None] + squares[None, :] - 2 * gram
    distances = np.maximum((distances + distances.T) / 2, 0)
    np.fill_diagonal(distances, 0)
    return distances


def squared_distances_to(updates: Updates, point: np.ndarray) -> np.ndarray:
    """Returns ‖Δ_i − point‖², float64 `[n]`, for a point `[d]`."""
    total = np.zeros(len(updates))
    for columns in updates.columns(trainable=True):
        part = updates.block(columns) - point[columns].astype(np.float64)
        total += np.einsum("ij,ij->i", part, part)
    return total


def products_with(updates: Updates, vector: np.ndarray) -> np.ndarray:
    """Returns Δ_iᵀ·vector, float64 `[n]`, for a vector `[d]`."""
    total = np.zeros(len(updates))
    for columns in updates.columns(trainable=True):
        total += updates.block(columns).astype(np.float64) @ vector[columns].astype(np.float64)
    return total


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

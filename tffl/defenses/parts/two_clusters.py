"""k-means with two clusters, on the inner products of the rows instead of the rows.

Lloyd's iteration starts from the pairs of rows that would make the best centers as they are, and
the result of least squared error counts. So neither chance nor the order of rows decides, as they
do where k-means starts at random (scikit-learn's ten times, since version 1.4 once by default).

Least Squares Quantization in PCM
    Stuart P. Lloyd. IEEE Transactions on Information Theory 28(2), 1982.
"""

from __future__ import annotations

import numpy as np

STARTS = 500
"""Most pairs to start from: all pairs of up to 32 rows."""

STEPS = 300
"""Most steps of one start, as in scikit-learn; it takes a few."""

DIGITS = 12
"""Squared errors are rounded to so many, relative to the largest: of equal ones, the first."""


def two_clusters(gram: np.ndarray) -> np.ndarray:
    """Returns bool `[n]`: which rows are in the other cluster than the first row.

    None are if all rows are equal.

    Args:
      gram: Inner products of the rows, less any common vector, float64 `[n, n]`, n >= 1.

    >>> rows = np.array([[0.0], [1.0], [9.0], [10.0], [11.0]])
    >>> two_clusters(rows @ rows.T)
    array([False, False,  True,  True,  True])
    """
    from threadpoolctl import threadpool_limits

    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares - gram - gram.T, 0)
    distances[distances <= 1e-14 * np.add.outer(squares, squares)] = 0  # only rounding
    if not distances.any():
        return np.zeros(len(gram), dtype=bool)
    first, second = _starts(distances)
    inside = distances[first] <= distances[second]
    with threadpool_limits(1, user_api="blas"):  # the same bits for any number of threads
        for _ in range(STEPS):
            before = inside
            near, far = distances_to_means(gram, before), distances_to_means(gram, ~before)
            inside = near <= far
            if (inside == before).all():
                break
    errors = np.where(before, near, far).sum(axis=1)
    best = inside[np.round(errors / squares.max(), DIGITS).argmin()]
    return best != best[0]


def _starts(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of rows of least squared error as centers, both int64 `[s]`."""
    n = len(distances)
    errors = [np.minimum(distances[row], distances[row + 1 :]).sum(axis=1) for row in range(n)]
    best = np.argsort(np.concatenate(errors), kind="stable")[:STARTS]
    first, second = np.triu_indices(n, 1)
    return first[best], second[best]


def distances_to_means(gram: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Returns the squared distance of every row to the mean of some, float64 `[..., n]`.

    Args:
      gram: Inner products of the rows, float64 `[n, n]`.
      members: Which rows each mean is of, bool `[..., n]`; the mean of none is the origin.

    >>> rows = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 5.0]])
    >>> distances_to_means(rows @ rows.T, np.array([True, True, False]))
    array([ 1.,  1., 25.])
    """
    shares = members / np.maximum(members.sum(axis=-1, keepdims=True), 1)
    products = shares @ gram
    lengths = np.einsum("...i,...i->...", shares, products)
    return np.maximum(np.diag(gram) - 2 * products + lengths[..., None], 0)

"""A Hessian that is only known by how the gradient turned along a few steps.

With pairs of a step s and a turn y, oldest first in the columns of S and Y, L-BFGS in its compact
form is

    Ĥ = σI − [σS  Y] [[σSᵀS, L], [Lᵀ, −D]]⁻¹ [σSᵀ; Yᵀ],   L_ij = s_iᵀy_j for i > j,  D_ii = s_iᵀy_i

with σ = yᵀs / sᵀs of the last pair. It is what the BFGS updates of σI by every pair yield. Pairs
without positive curvature are skipped, which keeps Ĥ positive definite.

Representations of Quasi-Newton Matrices and Their Use in Limited Memory Methods
    Richard Byrd, Jorge Nocedal, Robert Schnabel. Mathematical Programming 1994.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

CURVATURE = 1e-8
"""Smallest cosine of s and y that counts as positive curvature."""


def hessian_product(
    steps: np.ndarray, turns: np.ndarray, vector: np.ndarray, blocks: Iterable[slice]
) -> np.ndarray:
    """Returns Ĥ·v by L-BFGS, float64 `[d]`; zeros without a pair of positive curvature.

    Args:
      steps: s, how the weights changed, float32 `[k, d]`, oldest first.
      turns: y, how the gradient changed, float32 `[k, d]`.
      vector: v, `[d]`.
      blocks: The columns that count, in pieces; the product is 0 elsewhere.

    >>> step, turn = np.array([[1.0, 0.0]]), np.array([[3.0, 0.0]])
    >>> hessian_product(step, turn, np.array([2.0, 1.0]), [slice(0, 2)])
    array([6., 3.])
    """
    from threadpoolctl import threadpool_limits

    blocks = list(blocks)

    def part(columns: slice) -> np.ndarray:
        rows = (steps[:, columns], turns[:, columns], vector[None, columns])
        return np.concatenate(rows).astype(np.float64)

    gram, result = np.zeros((2 * len(steps) + 1,) * 2), np.zeros(len(vector))
    with threadpool_limits(1, user_api="blas"):  # the same bits however many there are
        for columns in blocks:
            rows = part(columns)
            with np.errstate(invalid="ignore"):  # of a model that attackers have blown up
                gram += rows @ rows.T
        factors = _factors(gram)
        if factors.any():
            for columns in blocks:
                result[columns] = factors @ part(columns)
    return result


def _factors(gram: np.ndarray) -> np.ndarray:
    """Returns how Ĥ·v is combined of s_1 … s_k, y_1 … y_k and v, float64 `[2k + 1]`.

    Args:
      gram: The inner products of these vectors, float64 `[2k + 1, 2k + 1]`.
    """
    k, factors = len(gram) // 2, np.zeros(len(gram))
    if not np.isfinite(gram).all():
        return factors
    lengths, curvature = np.sqrt(np.diag(gram)), np.diag(gram[:k, k : 2 * k])
    used = np.flatnonzero(curvature > CURVATURE * lengths[:k] * lengths[k : 2 * k])
    if len(used) == 0:
        return factors
    s, y = used, k + used
    sigma = curvature[used[-1]] / gram[used[-1], used[-1]]
    lower = np.tril(gram[np.ix_(s, y)], -1)
    middle = np.block(
        [[sigma * gram[np.ix_(s, s)], lower], [lower.T, -np.diag(curvature[used])]],
    )
    right = np.concatenate([sigma * gram[s, -1], gram[y, -1]])
    # With a diagonal of ±1, pairs of very different lengths do not spoil the solution.
    scale = np.sqrt(np.abs(np.diag(middle)))
    solution = np.linalg.lstsq(middle / np.outer(scale, scale), right / scale, rcond=None)[0]
    solution /= scale
    factors[s], factors[y], factors[-1] = -sigma * solution[: len(s)], -solution[len(s) :], sigma
    return factors

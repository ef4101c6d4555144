"""Geometric median (RFA): the point with the smallest sum of distances to the updates.

    Δ = argmin_z Σ α_i ‖z − Δ_i‖,    α_i = n_i / N
    smoothed Weiszfeld, from β = α:    z = Σ β_i Δ_i,    β_i ∝ α_i / max(ν, ‖z − Δ_i‖)

Robust Aggregation for Federated Learning
    Krishna Pillutla, Sham M. Kakade, Zaid Harchaoui. IEEE Transactions on Signal Processing 2022.

As in the paper, the passes start from FedAvg's mean, and ν is 1e-6; others start from zero, with
ν = 0.1. The paper stops after 3 to 5 passes, since each is a round of secure aggregation. A server
that sees the updates need not: all passes together read them twice, so tffl goes on until nothing
changes. It has to: of one client of ten that sends 1e30, every pass leaves a ninth, so that it
decides the result of three (`iterations = 3`).

Distances are those of the trainable columns. The others are averaged with the same weights, hence
a client that looks ordinary can still send bad BatchNorm statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core.geometry import RESOLUTION, centered_products
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State, sample_shares
from tffl.defenses.parts.tolerance import check_tolerance
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server

CONVERGED = 1e-9
"""Relative change of every weight below which a further pass would change no float32."""


def weiszfeld(
    gram: np.ndarray, shares: np.ndarray, iterations: int, smoothing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the geometric median of points as a mean of them, from their inner products alone.

    For a z = Σ β_j x_j whose weights sum to 1, ‖x_i − z‖² = G_ii − 2(Gβ)_i + βᵀGβ.

    Args:
      gram: G, float64 `[n, n]`; the origin is near most of the points, for the sake of rounding.
      shares: α, float64 `[n]`, summing to 1.
      iterations: Most passes to make.
      smoothing: ν > 0, distances count as at least that.

    Returns:
      The weights β, float64 `[n]`, summing to 1, and the distances that they were made from, at
      least ν.

    >>> points = np.array([-1.0, 0.0, 3.0])
    >>> weights, distances = weiszfeld(np.outer(points, points), np.full(3, 1 / 3), 1000, 1e-6)
    >>> weights.round(3), distances.round(3)
    (array([0., 1., 0.]), array([1., 0., 3.]))
    """
    squares, weights = np.diag(gram), shares
    for _ in range(iterations):
        # einsum rather than BLAS, whose last bits depend on its threads.
        projections = np.einsum("ij,j->i", gram, weights)
        square = np.einsum("i,i->", weights, projections)
        distances = squares - 2 * projections + square
        distances[distances < RESOLUTION * (squares + square)] = 0
        distances = np.maximum(smoothing, np.sqrt(np.maximum(distances, 0)))
        before, weights = weights, shares / distances
        weights = weights / weights.sum()
        if np.allclose(weights, before, rtol=CONVERGED, atol=0):
            break
    return weights, distances


@dataclass(frozen=True)
class GeometricMedian(RobustMean):
    """Averages updates with weights that make the result their geometric median.

    A client's score is the weight it has in FedAvg divided by its weight here, by how much it was
    reduced: proportional to its distance from the result, and 1 on average (harmonically). Where
    weights follow sample counts, nobody verifies these: a client that claims more than half of all
    samples is the median.

    Attributes:
      weighting: α by claimed `samples`, as in the paper, or `uniform`.
      iterations: Most Weiszfeld passes; it stops when nothing changes anymore. 3 is the paper's.
      smoothing: ν > 0, the least distance that counts.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> GeometricMedian().judge_rows(rows).aggregate.round(3)
    array([1.1], dtype=float32)
    """

    weighting: Literal["samples", "uniform"] = "samples"
    iterations: Annotated[int, Field(ge=1)] = 10_000
    smoothing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6

    reference: ClassVar[str] = (
        "Pillutla et al., Robust Aggregation for Federated Learning, IEEE TSP 2022"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f."""
        most = (participants - 1) // 2
        check_tolerance("geometric-median", self.malicious, participants, most, "n > 2f")

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Finds the weights, and averages all columns with them."""
        everybody = np.ones(len(updates), dtype=bool)
        shares = everybody / len(updates)
        if self.weighting == "samples":
            shares = sample_shares(updates, everybody)
        if not shares.any():  # nobody claims samples: as in FedAvg, the model stays
            return Combined(updates.mean(shares), shares, shares), state
        gram = centered_products(updates)
        weights, distances = weiszfeld(gram, shares, self.iterations, self.smoothing)
        scores = distances * np.sum(shares / distances)
        return Combined(updates.mean(weights), weights, scores), state

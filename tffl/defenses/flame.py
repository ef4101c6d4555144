"""FLAME: keep the majority that points the same way, clip to the median norm, add noise.

    K = the cluster of HDBSCAN on 1 − cos(Δ_i, Δ_j), clusters of more than n/2 only
    S = median_i ‖Δ_i‖                                over all i, kept or not
    Δ = Σ_{i ∈ K} min(1, S / ‖Δ_i‖)·Δ_i / |K|  +  N(0, (λS)²)

FLAME: Taming Backdoors in Federated Learning
    Thien Duc Nguyen, Phillip Rieger, Huili Chen, Hossein Yalame, Helen Möllering, Hossein
    Fereidooni, Samuel Marchal, Markus Miettinen, Azalia Mirhoseini, Shaza Zeitouni, Farinaz
    Koushanfar, Ahmad-Reza Sadeghi, Thomas Schneider. USENIX Security 2022.

Where implementations disagree: angles are measured between updates here, and between whole models
in several of them (option `angles`); σ is one number for all weights, theirs at times one per
tensor; the distance matrix is used as one, not as features. λ is a constant, 0.001 as in the
paper's image experiments, and not derived from a privacy budget.

The paper's `min_samples = 1` makes mutual reachability the distance itself: the nearest other
client is never farther than any other. In scikit-learn, where a point counts as its own neighbor,
that is so with 1 and with 2. As no two clusters can both hold a majority, HDBSCAN then amounts to
single linkage: K is the smallest subtree of the dendrogram that holds more than half of the
clients. It always exists, so that never more than half are rejected, and "all are noise", for
which implementations have special cases, cannot happen. Yet without any attack K may be a bare
majority: whoever joins it last is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.geometry import cosines, norm, products, products_with
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.clipping import clip_factors
from tffl.defenses.parts.noise import add_noise
from tffl.defenses.server import Server

DIGITS = 12
"""Distances are rounded to so many, so that equal angles tie whatever their last bit says."""


def majority(distances: np.ndarray) -> np.ndarray:
    """Returns bool `[n]`: the cluster of more than half of the points.

    Points at equal distance are in it together or not at all, so that their order does not matter.

    Args:
      distances: float64 `[n, n]`, symmetric.

    >>> points = np.array([0.0, 1.0, 2.0, 5.0, 9.0])
    >>> majority(np.abs(points[:, None] - points))
    array([ True,  True,  True, False, False])
    """
    from sklearn.cluster import HDBSCAN

    n = len(distances)
    if n < 3:
        return np.ones(n, dtype=bool)
    clustering = HDBSCAN(
        min_cluster_size=n // 2 + 1,
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,  # it overwrites the matrix otherwise
    )
    return clustering.fit_predict(distances) >= 0


@dataclass(frozen=True)
class Flame(Defense):
    """Averages the majority that points the same way, clipped to the median norm, plus noise.

    Flagged and rejected are the clients outside the cluster. The score is a client's mean distance
    to the (other) clients inside; it ranks clients and does not decide, so that there is no
    threshold. Weights are equal shares, whatever sample counts claim, before clipping. Rows with
    NaN or infinity are rejected and no part of n.

    Attributes:
      noise: λ >= 0; the noise falls on trainable weights only.
      angles: Between `updates`, or between the `models` that clients send, which are all nearly
        parallel.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> Flame(noise=0).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.001
    angles: Literal["updates", "models"] = "updates"

    reference: ClassVar[str] = (
        "Nguyen et al., FLAME: Taming Backdoors in Federated Learning, USENIX Security 2022"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if a majority would always be everybody."""
        require(
            participants >= 3,
            f"flame needs at least 3 participants a round, not {participants}: of fewer, a "
            "majority is everybody",
        )

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Clusters, clips, averages and adds noise."""
        finite = updates.finite()
        scores, accepted = np.full(len(updates), np.inf), np.zeros(len(updates), dtype=bool)
        aggregate = np.zeros(updates.layout.size, dtype=np.float32)
        if finite.any():
            kept = updates.select(finite)
            distances = self._distances(kept)
            inside = majority(distances)
            accepted[finite], scores[finite] = inside, mean_distances(distances, inside)
            aggregate = self._average(kept, inside, server)
        weights = accepted / max(accepted.sum(), 1)
        reasons = map(_reason, finite, accepted, scores)
        return Verdict.dividing(accepted, scores, weights, aggregate, reasons), state

    def _distances(self, updates: Updates) -> np.ndarray:
        gram = products(updates) if self.angles == "updates" else _model_products(updates)
        return np.round(1 - cosines(gram), DIGITS)

    def _average(self, updates: Updates, inside: np.ndarray, server: Server) -> np.ndarray:
        """Returns the clipped and noisy mean of those inside, float32 `[d]`."""
        norms = updates.norms(trainable=True)
        bound = float(np.median(norms))
        result = updates.mean(inside * clip_factors(norms, bound) / inside.sum())
        add_noise(result, self.noise * bound, updates, server, "flame")
        return result


def mean_distances(distances: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns each client's mean distance to those inside, but for itself, float64 `[n]`."""
    others = np.maximum(inside.sum() - inside, 1)
    return distances[:, inside].sum(axis=1) / others


def _model_products(updates: Updates) -> np.ndarray:
    """Returns the inner products of the clients' models w_t + Δ_i, float64 `[n, n]`."""
    start = updates.start
    cross = products_with(updates, start)
    return products(updates) + cross[:, None] + cross + norm(start, updates) ** 2


def _reason(finite: bool, accepted: bool, score: float) -> str:
    if not finite:
        return NOT_FINITE
    return "" if accepted else f"outside the majority, at a mean cosine distance of {score:.4g}"

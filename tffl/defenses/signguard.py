"""SignGuard: honest updates are of similar length, with similar shares of plus and minus signs.

    A = { i : L <= ‖Δ_i‖ / M <= R },   M = median_j ‖Δ_j‖
    B = the largest MeanShift cluster of (share of +, share of 0, share of −) per client
    Δ = mean over A ∩ B of Δ_i · min(1, M / ‖Δ_i‖)

with signs counted on a tenth of the trainable coordinates, drawn at random every round.

Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering
    Jian Xu, Shao-Lun Huang, Linqi Song, Tian Lan. ICDCS 2022.

The authors call their variants with a fourth feature SignGuard-Sim and SignGuard-Dist: `similarity`
adds the cosine, or the distance, to the last aggregate. What tffl takes where their code and other
implementations differ, or where nothing is said:

- The coordinates are a random subset; their code takes a contiguous run from a random start.
- Features stay as they are; their code divides each sign share by its largest, and clips the
  similarity. Here distances are divided by their median and cut off at R, so that one far update
  cannot blur the clusters. Until there is an aggregate to compare with, the feature is missing.
- The bandwidth is scikit-learn's estimate with quantile 0.5, everybody belongs to the nearest
  cluster, and clusters that share the largest size are all kept. Blades runs 2-means instead.
- The mean is plain: sample counts do not matter. BatchNorm statistics are averaged unclipped. If
  A ∩ B is empty, the model stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.geometry import cosines_with, squared_distances_to
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.scaling import scaled_mean
from tffl.defenses.server import Server

DIGITS = 12
"""Of features: equal updates have equal ones, whatever the last bit of a product says."""


def draw(layout: WeightLayout, share: float, generator: np.random.Generator) -> np.ndarray:
    """Returns bool `[d]`: a random `share` of the trainable columns, at least one."""
    columns = np.flatnonzero(layout.trainable)
    count = max(1, round(share * len(columns)))
    chosen = np.zeros(layout.size, dtype=bool)
    chosen[generator.choice(columns, count, replace=False)] = True
    return chosen


def sign_shares(updates: Updates, chosen: np.ndarray) -> np.ndarray:
    """Returns each client's shares of positive, zero and negative entries, float64 `[n, 3]`.

    Args:
      updates: Finite rows.
      chosen: bool `[d]`, the columns that count; at least one.
    """
    positive, negative = np.zeros(len(updates)), np.zeros(len(updates))
    for columns in updates.columns(trainable=True):
        part = updates.block(columns)[:, chosen[columns]]
        positive += (part > 0).sum(axis=1)
        negative += (part < 0).sum(axis=1)
    count = chosen.sum()
    return np.stack([positive, count - positive - negative, negative], axis=1) / count


def bandwidth(features: np.ndarray) -> float:
    """Returns the mean distance to the farthest of a point's nearest half, itself included.

    It is scikit-learn's `estimate_bandwidth` with `quantile=0.5`, and exactly 0 where that is due.
    """
    from scipy.spatial.distance import cdist

    nearest = np.sort(cdist(features, features), axis=1)
    return float(nearest[:, max(len(features) // 2, 1) - 1].mean())


def largest_cluster(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters points by MeanShift; where the bandwidth is 0, equal points are a cluster.

    Args:
      features: float64 `[n, k]`, n >= 1.

    Returns:
      bool `[n]`, which points belong to the largest cluster, or to one of several that are; and
      float64 `[n]`, their distances to its center, in bandwidths.
    """
    from scipy.spatial.distance import cdist
    from sklearn.cluster import MeanShift

    # Shares of signs tie, and the last bit of a sum decides who is within the bandwidth: summed in
    # an order of their own, points have the same clusters whatever the order of the clients.
    order = np.lexsort(features.T)
    back, points = np.argsort(order), features[order]
    width = bandwidth(points)
    if width > 0:
        found = MeanShift(bandwidth=width).fit(points)
        centers, labels = found.cluster_centers_, found.labels_
    else:
        centers, labels = np.unique(points, axis=0, return_inverse=True)
    sizes = np.bincount(labels.ravel())
    largest = sizes == sizes.max()
    apart = cdist(points, centers[largest]).min(axis=1)
    limits = np.where(apart > 0, np.inf, 0)
    apart = np.divide(apart, width, out=limits, where=width > 0)
    return largest[labels.ravel()][back], apart[back]


@dataclass(frozen=True)
class SignGuard(Defense):
    """Keeps updates of usual length and usual signs, and averages them clipped.

    A client's score is the larger of two: how far its length is from what is allowed, ‖Δ_i‖ / (R M)
    or L M / ‖Δ_i‖, and the distance of its features from the largest cluster's center, in
    bandwidths. The published rule is not a threshold of it: above 1 the length is refused, but the
    clusters' border may lie elsewhere. The score serves to rank clients; there is no threshold.

    Attributes:
      lower: L, the smallest length that is allowed, in medians.
      upper: R, the largest.
      share: Of the trainable coordinates whose signs are counted.
      similarity: A fourth feature: nothing, or the `cosine` or `distance` to the last aggregate.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> SignGuard(share=1.0).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    lower: Annotated[float, Field(ge=0, le=1)] = 0.1
    upper: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    similarity: Literal["none", "cosine", "distance"] = "none"

    reference: ClassVar[str] = (
        "Xu et al., Byzantine-robust Federated Learning through Collaborative Malicious Gradient "
        "Filtering, ICDCS 2022"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for so few clients that no two can form a cluster."""
        require(
            participants >= 4,
            f"signguard needs at least 4 participants a round, not {participants}: half of fewer "
            "is one client, so that no two are ever close",
        )

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Filters by length and by signs, clips, and averages."""
        finite, n = updates.finite(), len(updates)
        usual, similar = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        scores, factors = np.full(n, np.inf), np.zeros(n)
        if finite.any():
            kept = updates.select(finite)
            norms = kept.norms(trainable=True)
            median = np.median(norms)
            usual[finite], excess = self._lengths(norms, median)
            similar[finite], distance = largest_cluster(self._features(kept, server, state))
            scores[finite] = np.maximum(excess, distance)
            factors[finite] = _ratio(median, np.maximum(norms, median))
        accepted = usual & similar
        weights = accepted / max(accepted.sum(), 1)
        aggregate = scaled_mean(updates, weights, factors)
        if self.similarity != "none" and accepted.any():
            state = {"aggregate": aggregate}
        reasons = map(_reason, finite, usual, similar)
        return Verdict.dividing(accepted, scores, weights, aggregate, reasons), state

    def _lengths(self, norms: np.ndarray, median: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns whose length is allowed, bool `[n]`, and how far it is from that, `[n]`."""
        allowed = (self.lower * median <= norms) & (norms <= self.upper * median)
        too_long = _ratio(norms, self.upper * median)
        too_short = _ratio(self.lower * median, norms)
        return allowed, np.maximum(too_long, too_short)

    def _features(self, updates: Updates, server: Server, state: State) -> np.ndarray:
        """Returns what clients are clustered by, float64 `[n, 3]` or `[n, 4]`."""
        generator = seeds.generator(server.seed, "signguard", updates.round)
        shares = sign_shares(updates, draw(updates.layout, self.share, generator))
        last = state.get("aggregate")
        if last is None:
            return shares
        if self.similarity == "cosine":
            extra, _ = cosines_with(updates, last)
        else:
            distances = np.sqrt(squared_distances_to(updates, last))
            extra = np.minimum(_ratio(distances, np.median(distances)), self.upper)
        return np.column_stack([shares, extra]).round(DIGITS)


def _ratio(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    """Returns above / below, where 0 / 0 is 1 and anything else over 0 infinite."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    limits = np.where(above > 0, np.inf, 1.0)
    return np.divide(above, below, out=limits, where=below > 0)


def _reason(finite: bool, usual: bool, similar: bool) -> str:
    if not finite:
        return NOT_FINITE
    parts = []
    if not usual:
        parts.append("its length is far from the median")
    if not similar:
        parts.append("its signs are not those of the largest cluster")
    return "; ".join(parts)

"""FreqFed: average the majority of models whose low frequencies point the same way.

    V_i = DCT(W_i)                  W_i: a client's model, row by row in the smallest square matrix
    F_i = { V_i[a, b] : a, b < t, a + b <= t },   t = half the side of that matrix
    K = the cluster of HDBSCAN on 1 − cos(F_i, F_j),  clusters of more than n/2 only
    Δ = Σ_{i ∈ K} n_i Δ_i / Σ_{i ∈ K} n_i

with the orthonormal two-dimensional cosine transform of type II.

FreqFed: A Frequency Analysis-Based Approach for Mitigating Poisoning Attacks in Federated Learning
    Hossein Fereidooni, Alessandro Pegoraro, Phillip Rieger, Alexandra Dmitrienko, Ahmad-Reza
    Sadeghi. NDSS 2024.

No code of the authors was found. The abstract says what is done (a cosine transform of the weights,
their low frequencies, clusters, FedAvg); how, is taken from three public reimplementations, which
disagree:

- One folds the whole model into a square matrix as above; two transform the last layer as a vector
  and keep the first half of its coefficients. tffl does the former.
- One transforms the models, two the updates (option `of`). The transform is linear and orthonormal:
  it rotates, and what is new beside other rules of angles is that high frequencies are dropped.
- Two demand a cluster of more than half of the clients, one takes HDBSCAN's smallest size, 5, and
  the largest cluster. tffl demands a majority, as in `flame`: it always exists, and no minority of
  near-duplicates can win. Whoever joins it last is rejected, also where nobody attacks.
- At least one averages by equal weights; tffl by sample counts, as FedAvg of the abstract does.

Neighboring columns of a flat model are neighbors by the layout of its arrays only, so that which
frequencies are low depends on how a framework stores its weights: numbers of Keras and PyTorch
models differ. Trainable columns alone are transformed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from tffl.core.errors import require
from tffl.core.geometry import cosines, products
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.flame import DIGITS, majority, mean_distances
from tffl.defenses.server import Server


def low_frequencies(vector: np.ndarray) -> np.ndarray:
    """Returns the low half of a vector's two-dimensional cosine transform, float64 `[k]`.

    Args:
      vector: Finite numbers `[d]`, d >= 1.

    >>> low_frequencies(np.array([1.0, 2.0, 3.0, 4.0])).round(6)
    array([5.])
    """
    from scipy.fft import dctn

    side = math.isqrt(len(vector) - 1) + 1
    square = np.zeros(side * side)
    square[: len(vector)] = vector
    half = max(side // 2, 1)
    corner = dctn(square.reshape(side, side), norm="ortho")[:half, :half]
    along = np.arange(half)
    return corner[along[:, None] + along <= half]


def frequency_distances(updates: Updates, models: bool) -> np.ndarray:
    """Returns the cosine distances between clients' low frequencies, float64 `[n, n]`.

    Args:
      updates: Finite rows.
      models: Whether whole models are transformed, instead of updates.
    """
    trainable = updates.layout.trainable

    def features(row: int) -> np.ndarray:
        vector = updates.row(row)[trainable].astype(np.float64)
        low = low_frequencies(vector + updates.start[trainable] if models else vector)
        length = np.linalg.norm(low)
        return (low / length if length > 0 else low).astype(np.float32)

    rows = np.stack(list(updates.map_rows(features)))
    return np.round(1 - cosines(products(Updates.of_rows(rows))), DIGITS)


@dataclass(frozen=True)
class FreqFed(Defense):
    """Averages the majority of models whose low frequencies point the same way.

    Flagged and rejected are the clients outside the cluster. The score is a client's mean distance
    to the (other) clients inside; it ranks clients and does not decide, so that there is no
    threshold. Rows with NaN or infinity are rejected and no part of n.

    Attributes:
      of: What is transformed: the `models` that clients send, or their `updates`.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, -9.0]])
    >>> FreqFed().judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    of: Literal["models", "updates"] = "models"

    reference: ClassVar[str] = (
        "Fereidooni et al., FreqFed: A Frequency Analysis-Based Approach for Mitigating Poisoning "
        "Attacks in Federated Learning, NDSS 2024"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if a majority would always be everybody."""
        require(
            participants >= 3,
            f"freqfed needs at least 3 participants a round, not {participants}: of fewer, a "
            "majority is everybody",
        )

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Transforms, clusters and averages."""
        finite = updates.finite()
        scores, accepted = np.full(len(updates), np.inf), np.zeros(len(updates), dtype=bool)
        if finite.any():
            distances = frequency_distances(updates.select(finite), self.of == "models")
            inside = majority(distances)
            accepted[finite], scores[finite] = inside, mean_distances(distances, inside)
        weights = sample_shares(updates, accepted)
        reasons = map(_reason, finite, accepted, scores)
        return Verdict.dividing(accepted, scores, weights, updates.mean(weights), reasons), state


def _reason(finite: bool, accepted: bool, score: float) -> str:
    if not finite:
        return NOT_FINITE
    return "" if accepted else f"outside the majority, {score:.4g} away by its low frequencies"

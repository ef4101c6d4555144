"""FAA-DL: a one-class support vector machine draws a boundary around the clients' updates.

    K_ij = exp(−γ ‖Δ_i − Δ_j‖²),   γ = 1 / (d · Var(Δ))
    score_i = ρ − Σ_j a_j K_ij,    0 <= a_j <= 1,  Σ a_j = ν n

with a and ρ from Schölkopf's one-class SVM; clients outside the boundary, score > 0, are flagged.

Federated Anomaly Analytics for Local Model Poisoning Attack
    Siping Shi, Chuang Hu, Dan Wang, Yifei Zhu, Zhu Han. IEEE JSAC 2022.

Of this paper only the idea could be verified, not its text: anomalous local models are detected
with a one-class SVM, and the suspects are then checked under functional encryption. Kernel, γ, ν
and the features (plain updates) are therefore tffl's, those of scikit-learn's `OneClassSVM` by
default, and encryption is outside its scope: suspects are simply left out.

What to expect of it. ν bounds the share of flagged clients from above; in few dimensions about that
share is flagged, attacked or not. With far more dimensions than clients, all clients may lie *on*
the boundary, score 0: so they do if honest updates are independent normal vectors (20 clients in
10,000 dimensions, ν = 0.5, simulated). Real ones lie between: of 20 honest LeNet-5 clients with 70
digits each, 21 % were flagged at ν = 0.5. At scikit-learn's default tolerance the signs of such
zeros are the solver's leftovers, and 51 % of those normal vectors look like outliers; tffl solves
to 1e-9 and takes what is within 1e-6 for 0. Attackers are outside if they are few: two tight groups
that lie far apart hold equal shares of Σ a_j = ν n, but none more than its size, so that m of n
alike are flagged only if m < ν n / 2, and a single one only if ν n > 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.geometry import squared_distances
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.detector import Detector
from tffl.defenses.parts.scope import Layers, within
from tffl.defenses.parts.thresholds import Fixed, Threshold
from tffl.defenses.server import Server

SOLVED = 1e-9
"""libsvm's stopping tolerance."""

ZERO = 1e-6
"""Scores nearer to 0 are those of clients on the boundary."""


def variance(updates: Updates) -> tuple[float, int]:
    """Returns the variance of all trainable entries about their common mean, and d, their columns.

    In two passes, since the mean of squares less the square of the mean cancels.
    """
    columns, d = list(updates.columns(trainable=True)), int(updates.layout.trainable.sum())
    total = sum(updates.block(part).sum(dtype=np.float64) for part in columns)
    mean = total / (len(updates) * d)
    squares = sum(np.square(updates.block(part) - mean).sum() for part in columns)
    return float(squares) / (len(updates) * d), d


def rbf_kernel(updates: Updates) -> np.ndarray:
    """Returns the clients' RBF kernel, float64 `[n, n]`, with scikit-learn's `gamma="scale"`.

    Args:
      updates: Finite rows; their trainable columns count.
    """
    spread, d = variance(updates)
    gamma = 1 / (d * spread) if spread else 1.0
    return np.exp(-gamma * squared_distances(updates))


def outlyingness(kernel: np.ndarray, nu: float) -> np.ndarray:
    """Returns how far each point lies outside the one-class SVM's boundary, float64 `[n]`.

    Args:
      kernel: float64 `[n, n]`, n >= 1.
      nu: 0 < ν < 1.

    Returns:
      Negative inside, 0 on the boundary, positive outside.
    """
    from sklearn.svm import OneClassSVM

    machine = OneClassSVM(kernel="precomputed", nu=nu, tol=SOLVED).fit(kernel)
    scores = -machine.decision_function(kernel)
    return np.where(np.abs(scores) <= ZERO, 0.0, scores)


@dataclass(frozen=True)
class FaaDl(Detector):
    """Rejects clients outside the boundary of a one-class SVM.

    Attributes:
      nu: ν, at most this share of a round's clients is flagged, and attackers that resemble each
        other only while they are fewer than half of it.
      layers: Use the trainable coordinates of `all` layers, or of the `final` one.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> FaaDl().judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    nu: Annotated[float, Field(gt=0, lt=1)] = 0.5
    layers: Layers = "all"

    reference: ClassVar[str] = (
        "Shi et al., Federated Anomaly Analytics for Local Model Poisoning Attack, IEEE JSAC 2022"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if nobody could ever be flagged."""
        super().check(participants, layout)
        require(
            self.nu * participants >= 2,
            f"defense.nu = {self.nu:g} can never flag anyone among {participants} participants: "
            "nu times the participants must be at least 2",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns how far each client lies outside."""
        finite = updates.finite()
        scores = np.full(len(updates), np.inf)
        if finite.any():
            kernel = rbf_kernel(within(updates.select(finite), self.layers))
            scores[finite] = outlyingness(kernel, self.nu)
        return scores

    @property
    def threshold(self) -> Threshold:
        """0, the boundary."""
        return Fixed(0.0)

    def reason(self, score: float, threshold: float) -> str:
        """Says how far outside the client lies."""
        return f"outside the boundary of the one-class SVM by {score:.4g}"

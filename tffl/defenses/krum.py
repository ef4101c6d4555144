"""Krum: take the one update that lies closest to its neighbors.

    s_i = Σ ‖Δ_i − Δ_j‖²  over the n − f − 2 nearest j ≠ i
    Δ = Δ_k,  k = argmin s_i                                                n > 2f + 2

Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent
    Peva Blanchard, El Mahdi El Mhamdi, Rachid Guerraoui, Julien Stainer. NIPS 2017.

Implementations disagree: several count n − f − 1 or n − f neighbors, or sum plain distances. tffl
follows the paper. Distances are between trainable columns; the winner's statistics come with it.

Krum is a selection: n − 1 clients are left out, most of them honest, so that acceptance and
conviction differ here. Only the winner is accepted. The clients with the f highest scores are
convicted or, without f, those with scores above median + k·1.4826·MAD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.geometry import squared_distances
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import TOLERANCE
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.parts.tolerance import assumed_count, check_tolerance, remaining_count
from tffl.defenses.selection import Combined, Selection
from tffl.defenses.server import Server


def krum_scores(distances: np.ndarray, malicious: int) -> np.ndarray:
    """Sums each row's squared distances to its n − f − 2 nearest others, but at least to one.

    Args:
      distances: Squared, float64 `[n, n]`, zeros on the diagonal.
      malicious: f >= 0.

    Returns:
      float64 `[n]`; the higher, the farther from the others.

    >>> points = np.array([0.0, 1.0, 2.0, 9.0])
    >>> krum_scores((points[:, None] - points) ** 2, malicious=0)
    array([  5.,   2.,   5., 113.])
    """
    nearest = np.sort(distances, axis=1)[:, 1 : _neighbors(distances, malicious) + 1]
    return nearest.sum(axis=1)


def winner(distances: np.ndarray, malicious: int) -> int:
    """Returns the row with the lowest score.

    With one neighbor, the two rows that are nearest to each other always tie. Of rows whose scores
    are equal but for rounding, it is the one with the nearer next neighbor, and then the first.

    Args:
      distances: As in `krum_scores`.
      malicious: f >= 0.

    >>> points = np.array([0.0, 1.0, 3.0])
    >>> winner((points[:, None] - points) ** 2, malicious=0)
    1
    """
    following = min(_neighbors(distances, malicious) + 1, len(distances) - 1)
    tied = _lowest(krum_scores(distances, malicious))
    return int(tied[_lowest(np.sort(distances[tied], axis=1)[:, following])[0]])


def _neighbors(distances: np.ndarray, malicious: int) -> int:
    return max(len(distances) - malicious - 2, 1)


def _lowest(values: np.ndarray) -> np.ndarray:
    """Returns the positions of the lowest of non-negative values, and of those that equal it."""
    return np.flatnonzero(values <= values.min() * (1 + TOLERANCE))


def most(n: int) -> int:
    """Returns the largest f with n > 2f + 2; negative if there is none."""
    return (n - 3) // 2


def tolerated(malicious: int | float | None, n: int, removed: int = 0) -> int:
    """Returns f for the n rows that remain after `removed` rows that are not finite."""
    assumed = assumed_count(malicious, n + removed, most(n + removed))
    return remaining_count(assumed, removed, most(n))


@dataclass(frozen=True)
class Krum(Selection):
    """Takes the one update that is closest to its nearest neighbors.

    Of equal scores, the row with the nearer next neighbor wins, and then the smallest client id.
    Without f, neighbors are counted for the largest f that the rule tolerates.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.3], [9.0]])
    >>> verdict = Krum(malicious=1).judge_rows(rows)
    >>> verdict.accepted.tolist(), verdict.convicted.tolist()
    ([True, False, False, False, False], [False, False, False, False, True])
    """

    reference: ClassVar[str] = (
        "Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, "
        "NIPS 2017"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f + 2."""
        check_tolerance("krum", self.malicious, participants, most(participants), "n > 2f + 2")

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Gives all weight to the winner."""
        n = len(updates)
        distances, f = squared_distances(updates), tolerated(self.malicious, n)
        scores = krum_scores(distances, f)
        weights = np.zeros(n)
        weights[winner(distances, f)] = 1
        return Combined(updates.mean(weights), weights, scores), state

"""Nearest-neighbor mixing (NNM): replace each update by the mean of those around it.

    N_i = Δ_i and its n − f − 1 nearest others
    Δ'_i = (1 / (n − f)) Σ_{j ∈ N_i} Δ_j                                            n > 2f

Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity
    Youssef Allouah, Sadegh Farhadkhani, Rachid Guerraoui, Nirupam Gupta, Rafaël Pinot,
    John Stephan. AISTATS 2023.

What honest clients send differs less after it, so that a rule behind it, as in `nnm+krum`, has an
easier task. An attacker is judged by the mixture around its own update. Means are unweighted;
each mixture counts as many samples as the client in its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.geometry import squared_distances
from tffl.core.updates import Updates
from tffl.defenses.parts.tolerance import Malicious, assumed_count, check_tolerance, remaining_count
from tffl.defenses.server import Server
from tffl.defenses.wrapper import Mixture, PreAggregation


def neighbor_mixing(distances: np.ndarray, malicious: int) -> np.ndarray:
    """Returns float64 `[n, n]`: row i averages i and its n − f − 1 nearest others.

    Among others that are equally near, smaller positions, that is client ids, come first.

    Args:
      distances: Squared, `[n, n]`.
      malicious: f, from 0 to n − 1.

    >>> points = np.array([0.0, 1.0, 3.0])
    >>> neighbor_mixing((points[:, None] - points) ** 2, malicious=1)
    array([[0.5, 0.5, 0. ],
           [0.5, 0.5, 0. ],
           [0. , 0.5, 0.5]])
    """
    n = len(distances)
    others_last = distances - np.eye(n)  # a row is nearer to itself than an identical one is
    nearest = np.argsort(others_last, axis=1, kind="stable")[:, : n - malicious]
    mixing = np.zeros((n, n))
    np.put_along_axis(mixing, nearest, 1 / (n - malicious), axis=1)
    return mixing


@dataclass(frozen=True)
class NearestNeighborMixing(PreAggregation):
    """Replaces each update by the mean of itself and its nearest neighbors.

    Attributes:
      malicious: f, the expected attackers of a round: a count, or a fraction of its clients;
        n > 2f. Without it, f is the most that the rule tolerates: means of ⌊n/2⌋ + 1.

    >>> from tffl.defenses.median import Median
    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> NearestNeighborMixing(malicious=1).wrap(Median()).judge_rows(rows).aggregate.round(3)
    array([1.05], dtype=float32)
    """

    malicious: Malicious = None

    reference: ClassVar[str] = (
        "Allouah et al., Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity, "
        "AISTATS 2023"
    )

    @property
    def attackers(self) -> int | float | None:
        """The option `malicious`."""
        return self.malicious

    def check(self, participants: int) -> int:
        """Returns n; raises `UsageError` unless n > 2f."""
        check_tolerance("nnm", self.malicious, participants, _most(participants), "n > 2f")
        return participants

    def mix(self, updates: Updates, server: Server) -> Mixture:
        """Mixes each update with its neighbors; the verdict on a mixture is its client's."""
        n = len(updates)
        f = remaining_count(assumed_count(self.malicious, n, _most(n)), removed=0, most=_most(n))
        mixing = neighbor_mixing(squared_distances(updates), f)
        return Mixture(mixing, np.arange(n), updates.sample_counts)


def _most(n: int) -> int:
    """Returns the largest f with n > 2f."""
    return (n - 1) // 2

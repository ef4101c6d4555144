"""Bulyan: select by Krum, then average in each coordinate what lies around the median.

    S = {}; θ = n − 2f times: move Krum's winner among the remaining rows to S
    Δ_j = mean of the β = θ − 2f values of {Δ_ij, i ∈ S} closest to their median      n ≥ 4f + 3

The Hidden Vulnerability of Distributed Learning in Byzantium
    El Mahdi El Mhamdi, Rachid Guerraoui, Sébastien Rouault. ICML 2018.

Krum's own condition, n > 2f + 2, no longer holds for the last rows that are left; scores are then
sums over max(1, remaining − f − 2) neighbors, as in Flower. Other implementations take the θ lowest
scores in one shot, or another θ or β. Of two values as far below the median as above it, the
lower one counts as closer. The mean is unweighted, and covers BatchNorm statistics, at which Krum
does not look, in the same way.

The first step leaves 2f rows out, and the second leaves nearly every row out in some coordinate, so
that neither yields f suspects. The recorded suspects have the highest Krum scores among all n. The
rows in S are accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.geometry import squared_distances
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.krum import krum_scores, winner
from tffl.defenses.parts.order import WIDTH, ranked
from tffl.defenses.parts.tolerance import assumed_count, check_tolerance, remaining_count
from tffl.defenses.selection import Combined, Selection
from tffl.defenses.server import Server


def select(distances: np.ndarray, malicious: int, count: int) -> np.ndarray:
    """Returns the rows that Krum picks one after the other, each time from the remaining ones.

    Args:
      distances: Squared, float64 `[n, n]`.
      malicious: f.
      count: θ, from 1 to n.

    Returns:
      int64 `[count]`, ascending.

    >>> points = np.array([0.0, 1.0, 2.0, 9.0])
    >>> select((points[:, None] - points) ** 2, malicious=0, count=3)
    array([0, 1, 2])
    """
    rest = np.arange(len(distances))
    for _ in range(count):
        rest = np.delete(rest, winner(distances[np.ix_(rest, rest)], malicious))
    return np.setdiff1d(np.arange(len(distances)), rest)


def middle_mean(ordered: np.ndarray, count: int) -> np.ndarray:
    """Returns the mean of the `count` values closest to each median, float64 `[width]`.

    In sorted values they are a window. It starts after every value that is farther below the
    median than the value `count` places on is above it.

    Args:
      ordered: float64 `[width, n]`, ascending in each row.
      count: β, from 1 to n.

    >>> middle_mean(np.array([[0.0, 4.0, 5.0, 7.0, 30.0]]), count=3)
    array([5.33333333])
    """
    n = ordered.shape[1]
    median = (ordered[:, [(n - 1) // 2]] + ordered[:, [n // 2]]) / 2
    below, above = median - ordered[:, : n - count], ordered[:, count:] - median
    start = np.count_nonzero(below > above, axis=1)[:, None]
    return np.take_along_axis(ordered, start + np.arange(count), axis=1).mean(axis=1)


@dataclass(frozen=True)
class Bulyan(Selection):
    """Averages around the median, in each coordinate, the updates that Krum selects.

    Without f, it expects the largest f that it tolerates.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [1.0], [1.1], [9.0]])
    >>> verdict = Bulyan(malicious=1).judge_rows(rows)
    >>> verdict.accepted.tolist(), verdict.aggregate
    ([True, True, False, True, True, True, False], array([1.0666667], dtype=float32))
    """

    reference: ClassVar[str] = (
        "El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n >= 4f + 3."""
        bearable = _most(participants)
        check_tolerance("bulyan", self.malicious, participants, bearable, "n >= 4f + 3")

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Selects rows, and averages every column of theirs, non-trainable ones too."""
        n = len(updates)
        f = remaining_count(assumed_count(self.malicious, n, _most(n)), removed=0, most=_most(n))
        distances = squared_distances(updates)
        chosen = select(distances, f, count=n - 2 * f)
        part = updates.select(chosen)

        def block(columns: slice) -> np.ndarray:
            ordered = ranked(part.block(columns)).astype(np.float64)
            return middle_mean(ordered, count=n - 4 * f)

        aggregate = np.empty(updates.layout.size, dtype=np.float32)
        blocks = part.map_columns(block, size=WIDTH)
        for columns, mean in zip(part.columns(size=WIDTH), blocks, strict=True):
            aggregate[columns] = mean
        weights = np.zeros(n)
        weights[chosen] = 1 / len(chosen)
        return Combined(aggregate, weights, krum_scores(distances, f)), state


def _most(n: int) -> int:
    """Returns the largest f with n >= 4f + 3; negative if there is none."""
    return (n - 3) // 4

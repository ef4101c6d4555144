"""AUROR: who stands apart in most of the coordinates in which clients fall into two groups.

In every coordinate j the clients' values are split into the two clusters of least squared error,
with means m₁ and m₂:

    j is indicative        if |m₁ − m₂| > α
    client i is malicious  if it is in the smaller cluster in more than τ of the indicative j

AUROR: Defending Against Poisoning Attacks in Collaborative Deep Learning Systems
    Shiqi Shen, Shruti Tople, Prateek Saxena. ACSAC 2016.

The paper's text was not at hand: the rule is its abstract's, as later papers describe it, and the
paper's values of α could not be verified. An α in units of the weights depends on model, learning
rate and layer, so that tffl measures the gap, by default, in units of the clusters' own
spread, their pooled standard deviation √(W / (n − 2)), where W is the squared error that remains.
Honest clients split too: see `alpha`.

It finds attackers that move coordinates the same way. Several that send independent noise share
the small clusters among them, on either side, so that none of them reaches τ = 0.5.

Coordinates are chosen in every round, not in the first rounds for all later ones. The split is
the exact optimum, found on the sorted values, where others run Lloyd's iteration. Clusters of equal
size have no minority: no client is suspected there, though the coordinate counts. FLPoison uses the
final layer only and clusters all indicative coordinates at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.detector import Detector
from tffl.defenses.parts.scope import Layers, within
from tffl.defenses.parts.thresholds import Fixed, Threshold
from tffl.defenses.server import Server

WIDTH = 1 << 12
"""Columns at a time: few, since each needs several float64 copies."""


@dataclass(frozen=True)
class Split:
    """The best two clusters of every column.

    Attributes:
      lower: int64 `[w]`, how many of the n values the lower cluster holds, from 1 to n − 1.
      gap: float64 `[w]`, the distance of the two means.
      error: float64 `[w]`, W: the squared distances of all values to their own cluster's mean.
    """

    lower: np.ndarray
    gap: np.ndarray
    error: np.ndarray


def two_means(ranked: np.ndarray) -> Split:
    """Splits every column into the two clusters of least squared error.

    With values that sum to 0 and S_k the sum of the k lowest, a split after the k-th lowers the
    squared error by S_k² · n / (k (n − k)). Of equally good splits, the lower cluster is smallest.

    Args:
      ranked: Finite, float `[n, w]`, every column ascending; n >= 2.

    >>> two_means(np.array([[0.0], [1.0], [9.0], [10.0], [11.0]]))
    Split(lower=array([2]), gap=array([9.5]), error=array([2.5]))
    """
    n = len(ranked)
    centered = ranked - ranked[0].astype(np.float64)  # exactly 0 where all values are equal
    centered -= centered.mean(axis=0)
    total = np.einsum("ij,ij->j", centered, centered)
    sums = np.cumsum(centered, axis=0, out=centered)[:-1]
    sizes = np.arange(1, n)
    scale = n / (sizes * (n - sizes))
    gain = sums * sums
    gain *= scale[:, None]
    best = gain.argmax(axis=0)
    columns = np.arange(ranked.shape[1])
    gap = np.abs(sums[best, columns]) * scale[best]
    return Split(sizes[best], gap, np.maximum(total - gain[best, columns], 0))


def suspicions(rows: np.ndarray, alpha: float, spread: bool) -> tuple[np.ndarray, int]:
    """Counts in how many indicative columns each row is in the smaller cluster.

    Args:
      rows: Finite, float `[n, w]`, n >= 3.
      alpha: α >= 0.
      spread: Whether α is in units of the clusters' pooled standard deviation.

    Returns:
      The counts, int64 `[n]`, and how many columns are indicative.
    """
    n = len(rows)
    ranked = np.sort(rows, axis=0)
    split = two_means(ranked)
    unit = np.sqrt(split.error / (n - 2)) if spread else 1.0
    chosen = np.flatnonzero(split.gap > alpha * unit)
    values, lower = rows[:, chosen], split.lower[chosen]
    below = values <= ranked[lower - 1, chosen]
    minority = np.where(2 * lower < n, below, ~below) & (2 * lower != n)
    return minority.sum(axis=1), len(chosen)


@dataclass(frozen=True)
class Auror(Detector):
    """Rejects clients in the minority in most coordinates that split in two.

    Attributes:
      alpha: α, how far apart the two means must lie. In units of the clusters' spread, 5 is what
        5 % of coordinates exceed by chance among 10 clients with independent normal values, 0.4 %
        among 20 and none of 20,000 among 50 (simulated); among 5 clients it is 23 %, and more if
        tails are heavier.
      unit: What α is measured in: the clusters' pooled standard deviation (`spread`), or the
        weights themselves, as published (`absolute`).
      tau: τ, the share of indicative coordinates above which a client is malicious. Without an
        indicative coordinate nobody is.
      layers: Use the trainable coordinates of `all` layers, or of the `final` one.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> Auror().judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    unit: Literal["spread", "absolute"] = "spread"
    tau: Annotated[float, Field(ge=0, lt=1)] = 0.5
    layers: Layers = "all"

    reference: ClassVar[str] = (
        "Shen et al., AUROR: Defending Against Poisoning Attacks in Collaborative Deep Learning "
        "Systems, ACSAC 2016"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` where no cluster can be the smaller one."""
        super().check(participants, layout)
        require(
            participants >= 3,
            f"auror needs at least 3 participants a round, not {participants}: of two, neither is "
            "the minority",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the share of indicative coordinates in which each client is in the minority."""
        finite = updates.finite()
        scores = np.full(len(updates), np.inf)
        kept = within(updates.select(finite), self.layers)
        scores[finite] = self._shares(kept) if len(kept) >= 3 else 0.0
        return scores

    @property
    def threshold(self) -> Threshold:
        """τ."""
        return Fixed(self.tau)

    def reason(self, score: float, threshold: float) -> str:
        """Says how often the client is in the minority."""
        return (
            f"in the minority in {score:.1%} of the indicative coordinates, above {threshold:.1%}"
        )

    def _shares(self, updates: Updates) -> np.ndarray:
        def count(columns: slice) -> tuple[np.ndarray, int]:
            return suspicions(updates.block(columns), self.alpha, self.unit == "spread")

        counts, indicative = np.zeros(len(updates)), 0
        for suspect, chosen in updates.map_columns(count, trainable=True, size=WIDTH):
            counts += suspect
            indicative += chosen
        return counts / max(indicative, 1)

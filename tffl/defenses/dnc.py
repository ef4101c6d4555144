"""DnC (divide and conquer): leave out who stands out along the direction of largest spread.

    r times:  X = the updates in b random trainable columns, minus their mean
              v = leading right singular vector of X
              s_i = (X_i · v)²
              G = all but the ⌊c·f⌋ highest s_i
    Δ = Σ n_i Δ_i / Σ n_i  over the intersection of all G

Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated Learning
    Virat Shejwalkar, Amir Houmansadr. NDSS 2021.

Implementations disagree: r is 1 or 5, b is 10,000 (the authors), 1,000 or a fifth of the columns.
Each repetition may remove ⌊c·f⌋ more clients, hence r = 1 here. The paper's mean is plain. tffl
ranks by |X_i · v|, which is the same order, so that a threshold of median + k·1.4826·MAD, for a
server that does not know f, fits: squares of normally distributed values have far too long a tail.

The score is the largest ratio, over the repetitions, of |X_i · v| to what is still kept in it. The
direction is that of the largest update: one row far beyond all others hides the rest in its round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import median_mad, top
from tffl.core.updates import Updates
from tffl.defenses.detector import Detector
from tffl.defenses.parts.thresholds import Fixed, Threshold
from tffl.defenses.parts.tolerance import (
    Malicious,
    attacker_count,
    check_tolerance,
    remaining_count,
)
from tffl.defenses.server import Server

RESOLUTION = 1e-7
"""Relative spacing of float32: shorter projections, against the longest, are mere rounding."""


def projections(rows: np.ndarray) -> np.ndarray:
    """Returns |X_i · v|, float64 `[n]`: lengths along the direction of largest spread.

    X Xᵀ = U Σ² Uᵀ is `[n, n]`, and X v = σ u, so that v itself is not needed. Which of ±u the
    solver returns does not matter, nor does u where all rows are equal, as σ is 0 then.

    Args:
      rows: Finite, `[n, b]`.

    >>> projections(np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]])).round(6)
    array([2., 1., 3.])
    """
    centered = rows - rows.mean(axis=0, dtype=np.float64)
    squares, directions = np.linalg.eigh(centered @ centered.T)
    return math.sqrt(max(squares[-1], 0.0)) * np.abs(directions[:, -1])


def ratios(lengths: np.ndarray, kept: float) -> np.ndarray:
    """Returns how many times longer than the longest that is kept each is, float64 `[n]`.

    >>> ratios(np.array([1.0, 2.0, 6.0]), kept=2.0)
    array([0.5, 1. , 3. ])
    """
    scale = max(kept, RESOLUTION * lengths.max())
    return lengths / scale if scale > 0 else np.zeros_like(lengths)


@dataclass(frozen=True)
class DnC(Detector):
    """Leaves out who stands out along the direction in which updates differ most.

    Attributes:
      malicious: f, the expected attackers of a round: a count, or a fraction of its clients;
        n > 2f.
      iterations: r, how often to draw columns. A client is flagged if it is in any of them.
      coordinates: b, how many columns to draw; all if there are fewer.
      c: With `malicious`, each iteration removes ⌊c·f⌋ clients; c > 0.
      k: Without `malicious`, it removes those above median + k·1.4826·MAD.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> DnC(malicious=1).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
    """

    malicious: Malicious = None
    iterations: Annotated[int, Field(ge=1)] = 1
    coordinates: Annotated[int, Field(ge=1)] = 10_000
    c: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.5

    reference: ClassVar[str] = (
        "Shejwalkar and Houmansadr, Manipulating the Byzantine: Optimizing Model Poisoning Attacks "
        "and Defenses for Federated Learning, NDSS 2021"
    )

    @property
    def attackers(self) -> int | float | None:
        """The option `malicious`."""
        return self.malicious

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if f is too large, or if nobody might be left."""
        super().check(participants, layout)
        check_tolerance("dnc", self.malicious, participants, _most(participants), "n > 2f")
        count = attacker_count(self.malicious, participants) or 0
        removed = self.iterations * self._removals(count)
        require(
            removed < participants,
            f"dnc may remove {removed} of {participants} participants a round, ⌊c·f⌋ in each "
            "iteration; choose a smaller defense.iterations or defense.c",
        )

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns each client's largest ratio of its length to what is kept."""
        finite = updates.finite()
        scores = np.full(len(updates), np.inf)
        if finite.any():
            count = self._count(len(updates), removed=int((~finite).sum()))
            scores[finite] = self._outlierness(updates.select(finite), server.seed, count)
        return scores

    @property
    def threshold(self) -> Threshold:
        """1: scores are relative to each iteration's own threshold."""
        return Fixed(1.0)

    def reason(self, score: float, threshold: float) -> str:
        """Says how much the update stands out."""
        return f"stands out {score:.4g} times as much as what is kept"

    def _outlierness(self, updates: Updates, seed: int, count: int | None) -> np.ndarray:
        """Returns the scores of finite rows, of which `count` are removed in each iteration."""
        draw = seeds.generator(seed, "dnc", updates.round)
        trainable = np.flatnonzero(updates.layout.trainable)
        size = min(self.coordinates, len(trainable))
        scores = np.zeros(len(updates))
        for _ in range(self.iterations):
            columns = np.sort(draw.choice(trainable, size, replace=False, shuffle=False))
            lengths = projections(updates.block(columns))
            kept = median_mad(lengths, self.k) if count is None else top(lengths, count)
            scores = np.maximum(scores, ratios(lengths, kept))
        return scores

    def _count(self, n: int, removed: int) -> int | None:
        """Returns how many rows to remove in each iteration; None for a threshold."""
        f = attacker_count(self.malicious, n)
        if f is None:
            return None
        rows = n - removed
        return min(self._removals(remaining_count(f, removed, _most(rows))), rows - 1)

    def _removals(self, malicious: int) -> int:
        """Returns ⌊c·f⌋, also where 0.1 · 30 is a little less than 3."""
        return math.floor(self.c * malicious + 1e-9)


def _most(n: int) -> int:
    """Returns the largest f with n > 2f."""
    return (n - 1) // 2

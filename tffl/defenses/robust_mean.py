"""Defenses that bound what any client can do to the mean, instead of judging clients.

They leave nobody out, so that no verdict decides their result. Yet each says how much it distrusts
every client (the share of its coordinates that was trimmed, the weight that it lost), and whom one
would name by that: this is what detection tables of the literature mean when they list a robust
mean, and what the recall and false positive rate of such a run are about.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from tffl.core.thresholds import median_mad, top
from tffl.core.updates import Updates
from tffl.core.verdict import Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.tolerance import Malicious, told
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Combined:
    """What a rule makes of n finite updates.

    Attributes:
      aggregate: float32 `[d]`.
      weights: float64 `[n]`, each client's share, summing to 1; uniform where shares differ from
        column to column.
      scores: float64 `[n]`, how little the rule trusts each client.
    """

    aggregate: np.ndarray
    weights: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class RobustMean(Defense):
    """Combines all finite updates; rows with NaN or infinity are rejected.

    Attributes:
      malicious: f, what the server is told about a round's attackers: a count, a fraction, or
        nothing. Told f, the suspects on record are the f highest scores.
      k: Told nothing, they are those above median + k·1.4826·MAD.
    """

    malicious: Malicious = None
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.5

    @abstractmethod
    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Combines finite updates, at least one."""

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Sorts out rows that are not finite, and combines the others."""
        finite, n = updates.finite(), len(updates)
        aggregate = np.zeros(updates.layout.size, dtype=np.float32)
        weights, scores, threshold = np.zeros(n), np.full(n, np.inf), np.nan
        if finite.any():
            combined, state = self.combine(updates.select(finite), server, state)
            aggregate, weights[finite] = combined.aggregate, combined.weights
            scores[finite] = combined.scores
            threshold = self._threshold(scores)
        suspects = ~finite | (scores > threshold)
        return (
            Verdict(
                flagged=suspects,
                convicted=suspects,
                accepted=finite,
                weights=weights,
                scores=scores,
                threshold=threshold,
                aggregate=aggregate,
                reasons=tuple(map(self._reason, finite, suspects, scores)),
            ),
            state,
        )

    def _threshold(self, scores: np.ndarray) -> float:
        count = told(self.malicious, len(scores))
        return median_mad(scores, self.k) if count is None else top(scores, count)

    @staticmethod
    def _reason(finite: bool, suspect: bool, score: float) -> str:
        if not finite:
            return "the update holds NaN or infinity"
        return f"distrusted: score {score:.4g}" if suspect else ""

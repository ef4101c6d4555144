"""Rules that combine all updates into one, and say how little they trust each client.

Their result does not depend on a verdict. Still, each rule has a score of every client (the share
of its coordinates that was trimmed, the weight that it lost), and the suspects follow from it.
Tables in the literature mean this when they list the detection rates of such a rule; the recall and
false positive rate of a run are computed from it.

`RobustMean` accepts every client, and `Selection` only a few.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, NOT_SELECTED, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.thresholds import highest_or_outlying
from tffl.defenses.parts.tolerance import Malicious
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Combined:
    """What a rule computes from n finite updates.

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
class Combining(Defense):
    """Combines all finite updates into one; rows with NaN or infinity are rejected.

    Attributes:
      malicious: f, the expected attackers of a round: a count, or a fraction of its clients.
        The suspects on record are the clients with the f highest scores.
      k: Without `malicious`, they are those above median + k·1.4826·MAD.
    """

    malicious: Malicious = None
    k: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.5

    @property
    def attackers(self) -> int | float | None:
        """The option `malicious`."""
        return self.malicious

    @abstractmethod
    def kept(self, weights: np.ndarray) -> np.ndarray:
        """Says which of the finite rows, by their weights float64 `[n]`, count as accepted."""

    @abstractmethod
    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Combines finite updates, at least one."""

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Removes rows that are not finite, and combines the others."""
        finite, n = updates.finite(), len(updates)
        aggregate = np.zeros(updates.layout.size, dtype=np.float32)
        weights, scores, threshold = np.zeros(n), np.full(n, np.inf), np.nan
        if finite.any():
            combined, state = self.combine(updates.select(finite), server, state)
            aggregate, weights[finite] = combined.aggregate, combined.weights
            scores[finite] = combined.scores
            threshold = highest_or_outlying(self.malicious, self.k)(scores)
        suspects = ~finite | (scores > threshold)
        accepted = finite & self.kept(weights)
        return (
            Verdict(
                flagged=suspects,
                convicted=suspects,
                accepted=accepted,
                weights=weights,
                scores=scores,
                threshold=threshold,
                aggregate=aggregate,
                reasons=tuple(map(self._reason, finite, suspects, accepted, scores)),
            ),
            state,
        )

    @staticmethod
    def _reason(finite: bool, suspect: bool, accepted: bool, score: float) -> str:
        if not finite:
            return NOT_FINITE
        if suspect:
            return f"distrusted: score {score:.4g}"
        return "" if accepted else NOT_SELECTED

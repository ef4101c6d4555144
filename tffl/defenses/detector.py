"""Defenses that look for attackers among the clients of a round, and leave them out.

    score → threshold → vote → aggregate

A detector names its score and its threshold; the rest is here. Scores are float64 `[n]`, higher
is more suspicious.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from tffl.defenses.base import Defense, Server, State, Verdict, sample_shares
from tffl.defenses.parts import votes
from tffl.errors import require
from tffl.federated.layout import WeightLayout
from tffl.federated.updates import Updates


@dataclass(frozen=True)
class Detector(Defense):
    """Leaves suspicious clients out of the average.

    A row with NaN or infinity anywhere has score inf, is flagged, and is rejected at once, without
    a vote.

    Attributes:
      window: ξ, how many of its latest rounds a client is judged by.
      votes: ε, rejected are those flagged in at least `votes` of `window` rounds; see
        `tffl.defenses.parts.votes` for clients with fewer rounds.
      enforce: With false the verdict is only observed: flags and scores are recorded, and all are
        accepted and averaged as FedAvg does, NaN included.
    """

    window: Annotated[int, Field(ge=1)] = 1
    votes: Annotated[int, Field(ge=1)] = 1
    enforce: bool = True

    @abstractmethod
    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns float64 `[n]`; what it says of rows that are not finite does not count."""

    @abstractmethod
    def threshold(self, scores: np.ndarray) -> float:
        """Returns above which score a client is flagged; NaN if no score is finite."""

    def reason(self, score: float, threshold: float) -> str:
        """Says in words why a client is flagged."""
        return f"score {score:.4g} is above {threshold:.4g}"

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if nobody could ever be outvoted."""
        require(
            self.votes <= self.window,
            f"defense.votes = {self.votes} is not allowed with defense.window = {self.window}: "
            "a window holds at most as many votes as rounds",
        )

    @property
    def tracks_clients(self) -> bool:
        """Whether it votes over rounds."""
        return self.window > 1

    def init(self, server: Server) -> State:
        """Remembers no flag of anyone."""
        return {"flags": votes.empty(server.clients, self.window)}

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Scores, flags, votes, and averages those that remain by their sample counts."""
        finite = updates.finite()
        scores = np.where(finite, self.score(updates, server), np.inf)
        threshold = self.threshold(scores)
        flagged = ~finite | (scores > threshold)
        memory = votes.remember(state["flags"], updates.client_ids, flagged)
        recent = memory[updates.client_ids]
        convicted = ~finite | votes.outvoted(recent, self.votes)
        accepted = ~convicted if self.enforce else np.ones(len(updates), dtype=bool)
        weights = sample_shares(updates, accepted)
        verdict = Verdict(
            flagged=flagged,
            convicted=convicted,
            accepted=accepted,
            weights=weights,
            scores=scores,
            threshold=threshold,
            aggregate=updates.mean(weights),
            reasons=self._reasons(scores, threshold, flagged, accepted, recent),
        )
        return verdict, {"flags": memory}

    def _reasons(
        self,
        scores: np.ndarray,
        threshold: float,
        flagged: np.ndarray,
        accepted: np.ndarray,
        recent: np.ndarray,
    ) -> tuple[str, ...]:
        reasons = []
        for row, score in enumerate(scores.tolist()):
            parts = []
            if np.isinf(score):
                parts.append("the update holds NaN or infinity")
            elif flagged[row]:
                parts.append(self.reason(score, threshold))
            if self.window > 1 and (flagged[row] or not accepted[row]):
                rounds, flags = (recent[row] >= 0).sum(), (recent[row] == 1).sum()
                parts.append(f"flagged in {flags} of its last {rounds} rounds")
            reasons.append("; ".join(parts))
        return tuple(reasons)

"""Defenses that look for attackers among the clients of a round, and leave them out.

    score → threshold → vote → aggregate

A detector names its score and its threshold; the rest is here. Scores are float64 `[n]`, higher
is more suspicious.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.parts import votes
from tffl.defenses.parts.votes import Ballot
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Evidence:
    """What a detector found out about the n clients of a round.

    Attributes:
      scores: float64 `[n]`; what it says of rows that are not finite does not count.
      notes: What to say of each client beyond its score if it is flagged; empty for none.
      remembered: What the detector wants to have in its state, beside the votes.
      pictures: As in `Verdict`.
      refused: bool `[n]`, whom to reject at once, without a vote; their scores are infinite. None
        for nobody.
    """

    scores: np.ndarray
    notes: tuple[str, ...] = ()
    remembered: State = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    refused: np.ndarray | None = None


@dataclass(frozen=True)
class Detector(Defense):
    """Leaves suspicious clients out of the average.

    A row with NaN or infinity anywhere has score inf, is flagged, and is rejected at once, without
    a vote. Another client whose score is inf is flagged whatever the threshold.

    Attributes:
      window: ξ, how many of its latest rounds a client is judged by.
      votes: ε, rejected are those flagged in at least `votes` of `window` rounds; see
        `tffl.defenses.parts.votes` for clients with fewer rounds.
      ballot: The vote counts in every round (`sliding`), or in every ξ-th (`blocks`), while in
        between a round's own flags decide.
      enforce: With false the verdict is only observed: flags and scores are recorded, and all are
        accepted and averaged as FedAvg does, NaN included.
    """

    window: Annotated[int, Field(ge=1)] = 1
    votes: Annotated[int, Field(ge=1)] = 1
    ballot: Ballot = "sliding"
    enforce: bool = True

    @abstractmethod
    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns float64 `[n]`; what it says of rows that are not finite does not count."""

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Returns the scores, for detectors that have more to tell or to remember."""
        return Evidence(self.score(updates, server))

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
        verdict, memory = self.inspect(updates, server, state)
        return replace(verdict, aggregate=updates.mean(verdict.weights)), memory

    def inspect(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Scores, flags and votes; the aggregate is left zero."""
        finite = updates.finite()
        evidence = self.examine(updates, server, state)
        scores = np.where(finite, evidence.scores, np.inf)
        threshold = self.threshold(scores)
        flagged = np.isposinf(scores) | (scores > threshold)
        memory = votes.remember(state["flags"], updates.client_ids, flagged)
        recent = memory[updates.client_ids]
        voted = votes.counts(self.ballot, updates.round, self.window)
        convicted = ~finite | (votes.outvoted(recent, self.votes) if voted else flagged)
        if evidence.refused is not None:
            convicted |= evidence.refused
        accepted = ~convicted if self.enforce else np.ones(len(updates), dtype=bool)
        verdict = Verdict(
            flagged=flagged,
            convicted=convicted,
            accepted=accepted,
            weights=sample_shares(updates, accepted),
            scores=scores,
            threshold=threshold,
            aggregate=np.zeros(updates.layout.size, dtype=np.float32),
            reasons=self._reasons(
                finite, evidence.notes, scores, threshold, flagged, convicted, recent
            ),
            pictures=evidence.pictures,
        )
        return verdict, {**evidence.remembered, "flags": memory}

    def _reasons(
        self,
        finite: np.ndarray,
        notes: tuple[str, ...],
        scores: np.ndarray,
        threshold: float,
        flagged: np.ndarray,
        convicted: np.ndarray,
        recent: np.ndarray,
    ) -> tuple[str, ...]:
        reasons = []
        for row, score in enumerate(scores.tolist()):
            parts = []
            if not finite[row]:
                parts.append(NOT_FINITE)
            elif flagged[row]:
                note = notes[row] if notes else ""
                parts.append(note or self.reason(score, threshold))
            if self.window > 1 and (flagged[row] or convicted[row]):
                rounds, flags = (recent[row] >= 0).sum(), (recent[row] == 1).sum()
                parts.append(f"flagged in {flags} of its last {rounds} rounds")
            reasons.append("; ".join(parts))
        return tuple(reasons)

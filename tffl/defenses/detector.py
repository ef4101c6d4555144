"""Defenses that look for attackers among the clients of a round, and leave them out.

    score → threshold → vote → aggregate

A detector has these parts: a score, float64 `[n]`, higher is more suspicious; a rule that says
from which score on a client is flagged (`tffl.defenses.parts.thresholds`); and a vote over its
last rounds (`tffl.defenses.parts.votes`). `Detector` is what a new one extends.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field

from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, NOT_SELECTED, Judgment, Shown, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.parts.votes import Ballot, Vote
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Evidence:
    """What a detector found out about the n clients of a round.

    Attributes:
      scores: float64 `[n]`; what it says of rows that are not finite does not count.
      notes: What to say of each client beyond its score if it is flagged; empty for none.
      remembered: What the detector wants to have in its state, beside the votes.
      shown: As in `Judgment`.
      refused: bool `[n]`, whom to reject at once, without a vote; their scores are infinite. None
        for nobody.
      selected: bool `[n]`, the only clients to accept, whoever is convicted; None for all that are
        not convicted.
    """

    scores: np.ndarray
    notes: tuple[str, ...] = ()
    remembered: State = field(default_factory=dict)
    shown: tuple[Shown, ...] = ()
    refused: np.ndarray | None = None
    selected: np.ndarray | None = None


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

    @property
    def vote(self) -> Vote:
        """Who is rejected, given who was flagged."""
        return Vote(self.window, self.votes, self.ballot)

    def __post_init__(self) -> None:
        """Checks the options, and that somebody can be outvoted."""
        super().__post_init__()
        Vote(self.window, self.votes, self.ballot)

    def reason(self, score: float, threshold: float) -> str:
        """Says in words why a client is flagged."""
        return f"score {score:.4g} is above {threshold:.4g}"

    @property
    def tracks_clients(self) -> bool:
        """Whether it votes over rounds."""
        return self.window > 1

    def init(self, server: Server) -> State:
        """Remembers no flag of anyone."""
        return {"flags": self.vote.start(server.clients)}

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Scores, flags, votes, and averages those that remain by their sample counts."""
        judgment, memory = self.suspect(updates, server, state)
        weights = self.weights(updates, judgment.accepted)
        return Verdict.of(judgment, weights, updates.mean(weights)), memory

    def weights(self, updates: Updates, accepted: np.ndarray) -> np.ndarray:
        """Returns the accepted clients' shares of the average, float64 `[n]`."""
        return sample_shares(updates, accepted)

    def suspect(self, updates: Updates, server: Server, state: State) -> tuple[Judgment, State]:
        """Scores, flags and votes."""
        finite, evidence = updates.finite(), self.examine(updates, server, state)
        scores = np.where(finite, evidence.scores, np.inf)
        threshold = self.threshold(scores)
        flagged = np.isposinf(scores) | (scores > threshold)
        memory, outvoted = self.vote.decide(
            state["flags"], updates.client_ids, updates.round, flagged
        )
        refused = np.zeros(len(updates), bool) if evidence.refused is None else evidence.refused
        convicted = ~finite | outvoted | refused
        accepted = ~convicted if evidence.selected is None else evidence.selected & finite
        if not self.enforce:
            accepted = np.ones(len(updates), dtype=bool)
        recent = memory[updates.client_ids]
        notes = self._because(finite, flagged, scores, threshold, evidence.notes)
        judgment = Judgment(
            flagged=flagged,
            convicted=convicted,
            accepted=accepted,
            scores=scores,
            threshold=threshold,
            reasons=_reasons(notes, self.vote.histories(recent), flagged | convicted, accepted),
            shown=evidence.shown,
        )
        return judgment, {**evidence.remembered, "flags": memory}

    def _because(
        self,
        finite: np.ndarray,
        flagged: np.ndarray,
        scores: np.ndarray,
        threshold: float,
        notes: tuple[str, ...],
    ) -> list[str]:
        """Says of each client why it is flagged in this round; nothing where it is not."""
        found = [""] * len(scores)
        for row in np.flatnonzero(flagged).tolist():
            note = notes[row] if notes else ""
            found[row] = note or self.reason(scores[row].item(), threshold)
        return [note if good else NOT_FINITE for note, good in zip(found, finite, strict=True)]


def _reasons(
    notes: list[str], histories: list[str], suspected: np.ndarray, accepted: np.ndarray
) -> tuple[str, ...]:
    parts = [
        [note, history if suspect else ""]
        for note, history, suspect in zip(notes, histories, suspected, strict=True)
    ]
    said = ["; ".join(filter(None, part)) for part in parts]
    rows = zip(said, accepted, strict=True)
    return tuple(reason or ("" if kept else NOT_SELECTED) for reason, kept in rows)

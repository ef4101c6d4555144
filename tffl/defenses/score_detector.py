"""A detector that is put together from parts: a score, a threshold, a vote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tffl.core.updates import Updates
from tffl.core.verdict import Judgment, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.detector import Evidence, convict, numbers_of
from tffl.defenses.parts.thresholds import MedianMad, Threshold
from tffl.defenses.parts.votes import Vote
from tffl.defenses.server import Server


@dataclass(frozen=True, kw_only=True)
class ScoreDetector(Defense):
    """A detector of parts, for which no class need be written.

    Attributes:
      score: Finite `Updates` of m clients → float `[m]`, higher is more suspicious.
      threshold: The rule that says above which score a client is flagged.
      vote: Who is rejected, given who was flagged.
      enforce: As in `Detector`.

    >>> detector = ScoreDetector(score=Updates.norms, threshold=MedianMad(k=3.5))
    >>> detector.judge_rows(np.array([[1.0], [1.1], [-0.9], [1.0], [9.0]])).accepted.tolist()
    [True, True, True, True, False]
    """

    score: Callable[[Updates], np.ndarray]
    threshold: Threshold = field(default_factory=MedianMad)
    vote: Vote = field(default_factory=Vote)
    enforce: bool = True

    @property
    def tracks_clients(self) -> bool:
        """Whether it votes over rounds."""
        return self.vote.window > 1

    def options(self) -> dict[str, Any]:
        """Returns its parts in words, for the record: a function cannot be read from a file."""
        score, threshold = (
            getattr(part, "__qualname__", repr(part)) for part in (self.score, self.threshold)
        )
        vote = asdict(self.vote)
        return {"score": score, "threshold": threshold, "vote": vote, "enforce": self.enforce}

    def init(self, server: Server) -> State:
        """Remembers no flag of anyone."""
        return {"flags": self.vote.start(server.clients)}

    def reason(self, score: float, threshold: float) -> str:
        """Says in words why a client is flagged."""
        return f"score {score:.4g} is above {threshold:.4g}"

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Scores, flags, votes, and averages those that remain by their sample counts."""
        judgment, memory = self.suspect(updates, server, state)
        weights = sample_shares(updates, judgment.accepted)
        return Verdict.of(judgment, weights, updates.mean(weights)), memory

    def suspect(self, updates: Updates, server: Server, state: State) -> tuple[Judgment, State]:
        """Scores finite rows, flags and votes."""
        finite, scores = updates.finite(), np.full(len(updates), np.inf)
        if finite.any():
            scores[finite] = numbers_of(
                "score", self.score, updates.select(finite), (int(finite.sum()),)
            )
        judgment, flags = convict(updates, Evidence(scores), state["flags"], self)
        return judgment, {"flags": flags}

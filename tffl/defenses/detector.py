"""Defenses that look for attackers among the clients of a round, and leave them out.

    score → threshold → vote → aggregate

A detector has these parts: a score, float64 `[n]`, higher is more suspicious; a rule that says
from which score on a client is flagged (`tffl.defenses.parts.thresholds`); and a vote over its
last rounds (`tffl.defenses.parts.votes`). `Detector` is what a new one extends.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field

from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, NOT_SELECTED, Judgment, Shown, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.parts.thresholds import Threshold
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

    >>> from tffl.defenses.parts.thresholds import MedianMad
    >>> @dataclass(frozen=True)
    ... class LongUpdates(Detector):
    ...     threshold = MedianMad(k=3.5)
    ...     def score(self, updates, server):
    ...         return updates.norms()
    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> LongUpdates(window=3, votes=2).judge_rows(rows).accepted.tolist()
    [True, True, True, True, False]
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

    @property
    @abstractmethod
    def threshold(self) -> Threshold:
        """The rule that says, given scores float64 `[n]`, above which one a client is flagged.

        One of `tffl.defenses.parts.thresholds`; a method `threshold(scores)` will do as well.
        """

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
        return Verdict.of(judgment, weights, self.average(updates, judgment, weights)), memory

    def average(self, updates: Updates, judgment: Judgment, weights: np.ndarray) -> np.ndarray:
        """Returns the aggregate float32 `[d]`, for detectors that clip what they average.

        Args:
          updates: Of all clients.
          judgment: Whom it suspects.
          weights: What `weights` returned for the accepted, float64 `[n]`.
        """
        return updates.mean(weights)

    def weights(self, updates: Updates, accepted: np.ndarray) -> np.ndarray:
        """Returns the accepted clients' shares of the average, float64 `[n]`."""
        return sample_shares(updates, accepted)

    def suspect(self, updates: Updates, server: Server, state: State) -> tuple[Judgment, State]:
        """Scores, flags and votes."""
        evidence = self.examine(updates, server, state)
        judgment, flags = convict(updates, evidence, state["flags"], self)
        return judgment, {**evidence.remembered, "flags": flags}


class Parts(Protocol):
    """What `convict` needs of a detector."""

    @property
    def threshold(self) -> Threshold:
        """The rule that says above which score a client is flagged."""

    @property
    def vote(self) -> Vote:
        """Who is rejected, given who was flagged."""

    @property
    def enforce(self) -> bool:
        """Whether those who are convicted are left out."""

    def reason(self, score: float, threshold: float) -> str:
        """Says in words why a client is flagged."""


def numbers_of(
    part: str, function: Callable[[Any], Any], argument: Any, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns what a part, which may be anybody's function, makes of its argument, as float64.

    Raises:
      UsageError: It raises something, or returns anything but numbers of this shape.
    """
    try:
        found = np.asarray(function(argument))
    except TfflError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UsageError(f"{part} raises {first_line(error)}") from error
    require(
        found.shape == shape and found.dtype.kind in "biuf",
        f"{part} returns {found.dtype} {list(found.shape)}: it should be "
        f"{f'float64 {list(shape)}, a number per client' if shape else 'one number'}",
    )
    return found.astype(np.float64)


def convict(
    updates: Updates, evidence: Evidence, flags: np.ndarray, parts: Parts
) -> tuple[Judgment, np.ndarray]:
    """Goes from scores over threshold and vote to a judgment.

    Args:
      updates: Of n clients.
      evidence: Their scores, and what else is known.
      flags: The vote's memory, int8 `[clients, window]`.
      parts: Threshold, vote, and words.

    Returns:
      The judgment, and the memory with this round.

    Raises:
      UsageError: Not as many scores as clients, or the threshold fails or is not one number.
    """
    finite, shape = updates.finite(), np.shape(evidence.scores)
    require(
        shape == finite.shape, f"scores have shape {shape}: give {finite.shape}, one per client"
    )
    scores = np.where(finite, evidence.scores, np.inf)
    threshold = numbers_of("threshold", parts.threshold, scores, ()).item()
    flagged = np.isposinf(scores) | (scores > threshold)
    flags, outvoted = parts.vote.decide(flags, updates.client_ids, updates.round, flagged)
    convicted = ~finite | outvoted
    if evidence.refused is not None:
        convicted |= evidence.refused
    accepted = ~convicted if evidence.selected is None else evidence.selected & finite
    if not parts.enforce:
        accepted = np.ones(len(updates), dtype=bool)

    notes = [""] * len(updates)
    for row in np.flatnonzero(flagged).tolist():
        note = evidence.notes[row] if evidence.notes else ""
        notes[row] = note or parts.reason(scores[row].item(), threshold)
    notes = [note if good else NOT_FINITE for note, good in zip(notes, finite, strict=True)]
    histories = parts.vote.histories(flags[updates.client_ids])
    judgment = Judgment(
        flagged=flagged,
        convicted=convicted,
        accepted=accepted,
        scores=scores,
        threshold=threshold,
        reasons=_reasons(notes, histories, flagged | convicted, accepted),
        shown=evidence.shown,
    )
    return judgment, flags


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

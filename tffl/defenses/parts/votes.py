"""Who is rejected, given who was flagged: a vote over a client's last rounds.

The memory is one array, int8 `[clients, window]`: a row per client id, its latest round first;
1 is flagged, 0 is not, −1 stands for a round it has not had yet. Only rounds in which a client
takes part move its row.

When the vote counts is the ballot:

    sliding   in every round
    blocks    in rounds that ξ divides; in the others, a round's own flags decide

`blocks` is the schedule of GradCAM-AE (Zheng et al., equations 18 and 19): within a block of ξ
rounds everything is decided at once, and at its end the vote, which may let a client pass that was
flagged just now, or reject one that was not. A client that was away in some rounds of a block is
judged by its own last ξ rounds, older ones among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.options import Options

Ballot: TypeAlias = Literal["sliding", "blocks"]
"""When a vote counts."""


@dataclass(frozen=True)
class Vote(Options):
    """Rejects clients that were flagged in at least `votes` of their last `window` rounds.

    Attributes:
      window: ξ, at least 1.
      votes: ε, from 1 to the window.
      ballot: See above.

    Raises:
      UsageError: Nobody could ever be outvoted, or a value is out of its range.

    >>> vote = Vote(window=2, votes=2)
    >>> memory, ids = vote.start(clients=3), np.arange(3)
    >>> memory, _ = vote.decide(memory, ids, 1, np.array([True, True, False]))
    >>> memory, convicted = vote.decide(memory, ids, 2, np.array([True, False, True]))
    >>> convicted
    array([ True, False, False])
    """

    window: Annotated[int, Field(ge=1)] = 1
    votes: Annotated[int, Field(ge=1)] = 1
    ballot: Ballot = "sliding"

    def __post_init__(self) -> None:
        """Checks that somebody can be outvoted."""
        super().__post_init__()
        require(
            self.votes <= self.window,
            f"defense.votes = {self.votes} is not allowed with defense.window = {self.window}: "
            "a window holds at most as many votes as rounds",
        )

    def start(self, clients: int) -> np.ndarray:
        """Returns the memory before round 1, int8 `[clients, window]`."""
        return np.full((clients, self.window), -1, dtype=np.int8)

    def decide(
        self, memory: np.ndarray, client_ids: np.ndarray, round: int, flagged: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Counts the votes of a round.

        Args:
          memory: int8 `[clients, window]`; stays as it is.
          client_ids: int64 `[n]`, distinct.
          round: 1-based.
          flagged: bool `[n]`.

        Returns:
          The memory with this round, and who is convicted, bool `[n]`.
        """
        memory = remember(memory, client_ids, flagged)
        if not is_ballot_round(self.ballot, round, self.window):
            return memory, flagged
        return memory, outvoted(memory[client_ids], self.votes)

    def histories(self, memory: np.ndarray) -> list[str]:
        """Says how often each client was flagged lately; nothing where a round stands alone.

        >>> Vote(window=3, votes=2).histories(np.array([[1, 0, -1]], np.int8))
        ['flagged in 1 of its last 2 rounds']
        """
        if self.window == 1:
            return [""] * len(memory)
        rounds, flags = (memory >= 0).sum(axis=1), (memory == 1).sum(axis=1)
        pairs = zip(flags.tolist(), rounds.tolist(), strict=True)
        return [f"flagged in {flag} of its last {round} rounds" for flag, round in pairs]


def is_ballot_round(ballot: Ballot, round: int, window: int) -> bool:
    """Says whether clients are judged by the vote in a round, 1-based, or by its flags alone.

    >>> [round for round in range(1, 8) if is_ballot_round("blocks", round, window=3)]
    [3, 6]
    """
    return ballot == "sliding" or round % window == 0


def remember(memory: np.ndarray, client_ids: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """Returns the memory with one more round of the clients that took part.

    Args:
      memory: int8 `[clients, window]`; stays as it is.
      client_ids: int64 `[n]`, distinct.
      flagged: bool `[n]`.

    >>> remember(np.array([[0, -1], [1, 0]], np.int8), np.array([1]), np.array([True]))
    array([[ 0, -1],
           [ 1,  1]], dtype=int8)
    """
    result = memory.copy()
    result[client_ids, 1:] = memory[client_ids, :-1]
    result[client_ids, 0] = flagged
    return result


def outvoted(memory: np.ndarray, votes: int) -> np.ndarray:
    """Returns bool `[n]`: which rows were flagged at least `votes` times in a whole window.

    A client with h rounds so far, fewer than the window ξ, is judged by the same share of them:
    ⌈votes · h / ξ⌉. Hence its first round decides by itself.

    Args:
      memory: int8 `[n, window]`, at least one round per row.
      votes: ε, from 1 to the window.

    >>> outvoted(np.array([[1, -1, -1], [1, 0, -1], [0, 1, 1]], np.int8), votes=2)
    array([ True, False,  True])
    """
    rounds = (memory >= 0).sum(axis=1)
    needed = -(-votes * rounds // memory.shape[1])
    return (memory == 1).sum(axis=1) >= needed

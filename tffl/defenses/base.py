"""What a defense is: the updates of a round in, a verdict out.

    features → score → threshold → vote → aggregate

`Detector` runs these five steps; a defense overrides those in which its paper differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tffl.federated.layout import WeightLayout
from tffl.federated.updates import Updates

if TYPE_CHECKING:
    import keras

State = Mapping[str, np.ndarray]
"""What a defense remembers from round to round; a checkpoint stores it as it is."""


@dataclass(frozen=True)
class Server:
    """What a real server owns, and nothing more: never the ground truth.

    Attributes:
      model: The global network, for its structure; its weights are those of the round's start.
      layout: Columns of the update matrix.
      clients: Number of registered clients; ids are below it.
      seed: The experiment's seed; draw through `tffl.seeds`.
    """

    model: keras.Model
    layout: WeightLayout
    clients: int
    seed: int


@dataclass(frozen=True)
class Verdict:
    """What a defense decided about the n clients of one round.

    Attributes:
      flagged: bool `[n]`, suspected by this round's evidence alone.
      convicted: bool `[n]`, malicious in the defense's judgment, after any vote. Detection metrics
        are computed from it.
      accepted: bool `[n]`, part of the average: not convicted, unless the defense only observes.
      weights: float64 `[n]`, each client's share of the average; zeros and sums to 1, or all zero
        when nobody was accepted.
      scores: float64 `[n]`, higher is more suspicious; NaN where the defense has none.
      threshold: Scores above it are flagged; NaN where there is none.
      aggregate: float32 `[d]`, the aggregated update; zeros when nobody was accepted, so that the
        global model stays as it is.
      reasons: One string per client, empty where it is accepted and not flagged.
    """

    flagged: np.ndarray
    convicted: np.ndarray
    accepted: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    threshold: float
    aggregate: np.ndarray
    reasons: tuple[str, ...]


class Defense(ABC):
    """Judges the updates of each round. Subclasses are frozen dataclasses of their options."""

    reference: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` before round 1 if the defense cannot work in this setting."""
        return

    def init(self, server: Server) -> State:
        """Returns the state before round 1."""
        return {}

    @abstractmethod
    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Returns the verdict on a round, and the state for the next one."""


def sample_shares(updates: Updates, accepted: np.ndarray) -> np.ndarray:
    """Returns FedAvg's weights float64 `[n]`: sample counts of the accepted rows, summing to 1."""
    counts = np.where(accepted, updates.sample_counts, 0).astype(np.float64)
    return counts / counts.sum() if counts.any() else counts

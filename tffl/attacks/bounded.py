"""What attacks share that stay as near to the honest mean as honest clients.

    c  = Σ D_i Δ_i / Σ D_i                 mean of the honest updates that the attackers see
    r  = quantile of the ‖Δ_i − c‖         their distances from it
    w' = w_t + (1 − p)·c + p·Δ             the next joint model, if all attackers send Δ

D are claimed sample counts, and p is the attackers' share of them. Distances are over
the trainable columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.model_attack import PARTICIPANTS, InformedAttack
from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

SAMPLE_COUNTS = "claimed sample counts"


def distances_to(updates: Updates, point: np.ndarray) -> np.ndarray:
    """Returns each update's distance to a point `[d]` over the trainable columns, float64 `[n]`."""
    total = np.zeros(len(updates))
    with np.errstate(over="ignore", invalid="ignore"):
        for columns in updates.columns(trainable=True):
            away = updates.block(columns) - point[columns].astype(np.float64)
            total += np.einsum("ij,ij->i", away, away)
    return np.sqrt(total)


def require_distances(attack: InformedAttack, malicious: int) -> None:
    """Raises `UsageError` if an attack that needs distances can only ever see one update.

    Args:
      attack: Its options `knows` and `overheard` are checked.
      malicious: Number of malicious clients.
    """
    require(
        attack.knows != "overheard" or attack.overheard > 1 or malicious == 0,
        "attack.overheard = 1 is not allowed here: one update has no distance from the mean, "
        "so overhear at least 2",
    )
    require(
        attack.knows != "colluders" or malicious != 1,
        "attack.knows = 'colluders' needs at least 2 malicious clients here: one update has "
        "no distance from the mean",
    )


def length(vector: np.ndarray) -> float:
    """Returns the Euclidean norm of float64 `[d]`, the same bits whatever the number of threads."""
    return float(np.sqrt(np.einsum("j,j->", vector, vector)))


def project(move: np.ndarray, radius: float) -> np.ndarray:
    """Returns the point of a ball around 0 that is nearest to a vector.

    >>> project(np.array([3.0, 4.0]), 1.0), project(np.array([0.3, 0.4]), 1.0)
    (array([0.6, 0.8]), array([0.3, 0.4]))
    """
    norm = length(move)
    return move if norm <= radius else move * (radius / norm)


def unit(vector: np.ndarray) -> np.ndarray:
    """Returns a vector at length 1, float64; 0 where it has no direction or is not finite."""
    vector = vector.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = length(vector)
    return vector / norm if 0 < norm < np.inf else np.zeros_like(vector)


@dataclass(frozen=True)
class ExpectedModel:
    """The next joint model, as the attackers predict it.

    Attributes:
      start: w_t, float32 `[d]`.
      center: c, float32 `[d]`.
      distances: ‖Δ_i − c‖ of the seen updates, float64 `[k]`.
      share: p.
    """

    start: np.ndarray
    center: np.ndarray
    distances: np.ndarray
    share: float

    @classmethod
    def of(cls, updates: Updates, malicious: np.ndarray, seen: Updates) -> ExpectedModel:
        """Predicts it from the seen updates.

        Args:
          updates: All of the round; of the honest ones, only their number is read.
          malicious: bool `[n]`.
          seen: The updates that the attackers treat as honest. Honest clients that they do not see
            are assumed to claim as many samples as these on average.
        """
        center = seen.mean(seen.sample_counts / seen.sample_counts.sum())
        claimed = float(updates.sample_counts[malicious].sum())
        honest = float(seen.sample_counts.mean()) * np.count_nonzero(~malicious)
        share = claimed / (claimed + honest)
        return cls(updates.start, center, distances_to(seen, center), share)

    def joint(self, move: np.ndarray) -> np.ndarray:
        """Returns w' float32 `[d]` if the attackers send `center + move`."""
        return (self.start.astype(np.float64) + self.center + self.share * move).astype(np.float32)


@dataclass(frozen=True)
class BoundedAttack(InformedAttack):
    """Sends a row that is no farther from the honest mean than honest ones are.

    If only one update is seen, its distance from the mean is 0, and a copy of it is sent.

    Attributes:
      quantile: Quantile of the honest distances that is the bound: 0.5 their median, 1 their
        maximum.
      steps: Steps of gradient ascent in each round; each costs a forward and a backward pass.
      step: Length of a step, as a share of the bound.
      batch: Number of the attackers' images on which a step computes the loss, drawn at random.
    """

    quantile: Annotated[float, Field(ge=0, le=1)] = 1.0
    steps: Annotated[int, Field(ge=1)] = 20
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2
    batch: Annotated[int, Field(ge=1)] = 256

    knowledge: ClassVar[tuple[str, ...]] = (
        *InformedAttack.knowledge,
        PARTICIPANTS,
        SAMPLE_COUNTS,
    )

    def check_clients(self, malicious: int, participants: int) -> None:
        """Raises `UsageError` if only one update can ever be seen."""
        super().check_clients(malicious, participants)
        require_distances(self, malicious)

    def bound(
        self, expected: ExpectedModel, updates: Updates, malicious: np.ndarray, free: np.ndarray
    ) -> float:
        """Returns the largest distance of a crafted row from the center in the modifiable columns.

        In the other trainable columns the rows stay as trained, and have a distance from the center
        there; the bound is what remains of r for the malicious client that is farthest off.

        Args:
          expected: Center and distances.
          updates: All updates of the round.
          malicious: bool `[n]`.
          free: bool `[d]`, the modifiable columns.
        """
        radius = float(np.quantile(expected.distances, self.quantile))
        fixed = updates.layout.trainable & ~free
        if not fixed.any():
            return radius
        own = updates.select(malicious)
        spent = np.zeros(len(own))
        for columns in own.columns(trainable=True):
            away = own.block(columns) - expected.center[columns].astype(np.float64)
            away[:, ~fixed[columns]] = 0
            spent += np.einsum("ij,ij->i", away, away)
        return float(np.sqrt(max(0.0, radius**2 - spent.max())))

    def batches(self, adversary: Adversary, round: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images and labels of the attackers' own, for each step."""
        images, labels = adversary.samples()
        draw = seeds.generator(adversary.seed, "ascent batches", round)
        count = min(self.batch, len(labels))
        for _ in range(self.steps):
            rows = draw.choice(len(labels), count, replace=False)
            yield images[rows], labels[rows]

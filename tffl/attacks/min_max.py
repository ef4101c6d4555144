"""Min-Max and Min-Sum: as far from the honest mean as honest clients are from each other.

    x = a + γ·p,   a = mean of the honest updates,   p = −σ, −a/‖a‖ or −sign(a)

    Min-Max:  largest γ with  max_i ‖x − x_i‖²  ≤  max_ij ‖x_i − x_j‖²
    Min-Sum:  largest γ with  Σ_i ‖x − x_i‖²  ≤  max_i Σ_j ‖x_i − x_j‖²

Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated Learning
    Virat Shejwalkar, Amir Houmansadr. NDSS 2021.

Each side on the left is a quadratic in γ, so the largest γ is one of its roots: tffl computes it
exactly, where the paper searches for it by halving steps. The length of p does not matter then.
The authors' notebook bounds Min-Sum by the smallest sum of distances, which is stricter; tffl
follows the paper, and takes the largest. Distances are over the trainable columns; they hold up to
the rounding of the row to float32, and for `poisoning_ratio` 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from tffl.attacks.base import State
from tffl.attacks.model_attack import InformedAttack
from tffl.attacks.statistics import Line, mean, per_coordinate
from tffl.core.geometry import squared_distances
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

Perturbation = Literal["std", "unit", "sign"]


def perturbation_of(kind: Perturbation, seen: Updates, center: np.ndarray) -> np.ndarray:
    """Returns the direction p, float32 `[d]`, of any length."""
    if kind == "std":
        return -per_coordinate(seen, lambda part: part.std(axis=0))[0]
    return -np.sign(center) if kind == "sign" else -center


def largest_root(square: float, linear: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Returns the largest γ with `square·γ² + 2·linear·γ + constant ≤ 0`, elementwise.

    Args:
      square: Above 0.
      linear: float64 `[n]`.
      constant: float64 `[n]`, at most 0, so that γ = 0 is allowed; larger values are treated as 0.

    >>> largest_root(2.0, np.array([-1.0]), np.array([-12.0]))
    array([3.])
    """
    root = np.sqrt(linear**2 - square * np.minimum(constant, 0))
    return np.maximum((root - linear) / square, 0)


def min_max_step(line: Line, distances: np.ndarray) -> float:
    """Returns γ of Min-Max, given the squared distances float64 `[n, n]` of honest updates."""
    if line.square == 0:
        return 0.0
    roots = largest_root(line.square, line.linear, line.constant - distances.max())
    return float(roots.min())


def min_sum_step(line: Line, distances: np.ndarray) -> float:
    """Returns γ of Min-Sum, given the squared distances float64 `[n, n]` of honest updates."""
    if line.square == 0:
        return 0.0
    count, bound = len(distances), distances.sum(axis=1).max()
    total, linear = line.constant.sum(keepdims=True), line.linear.sum(keepdims=True)
    return float(largest_root(count * line.square, linear, total - bound)[0])


@dataclass(frozen=True)
class MinMax(InformedAttack):
    """Sends a row no farther from any honest update than two honest ones are from each other.

    Attributes:
      perturbation: Direction p: `std`, against the standard deviation of each coordinate; `unit`,
        against the mean; `sign`, against its sign.

    >>> rows = np.array([[0.0], [1.0], [2.0], [4.0]])
    >>> MinMax(perturbation="unit").poison_rows(rows, malicious=[0])[0]  # 3 from the farthest one
    array([1.], dtype=float32)
    """

    perturbation: Perturbation = "std"

    reference: ClassVar[str] = (
        "Shejwalkar and Houmansadr, Manipulating the Byzantine: Optimizing Model Poisoning Attacks "
        "and Defenses for Federated Learning, NDSS 2021"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        seen = self.seen(updates, malicious, adversary)
        center = mean(seen)
        direction = perturbation_of(self.perturbation, seen, center)
        step = self.step(Line.of(seen, center, direction), squared_distances(seen))
        row = center + step * direction.astype(np.float64)
        return row[None].astype(np.float32), state

    def step(self, line: Line, distances: np.ndarray) -> float:
        """Returns γ, given the squared distances float64 `[n, n]` of the seen updates."""
        return min_max_step(line, distances)


@dataclass(frozen=True)
class MinSum(MinMax):
    """Sends a row whose squared distances to the honest updates sum up to no more than theirs.

    Attributes:
      perturbation: As in Min-Max.

    The other rows have sums of squares 10, 5 and 13; the row that is sent has 13:

    >>> rows = np.array([[0.0], [1.0], [2.0], [4.0]])
    >>> sent = MinSum(perturbation="unit").poison_rows(rows, malicious=[0])[0]
    >>> float(((rows[1:] - sent) ** 2).sum().round(3))
    13.0
    """

    def step(self, line: Line, distances: np.ndarray) -> float:
        """Returns γ, given the squared distances float64 `[n, n]` of the seen updates."""
        return min_sum_step(line, distances)

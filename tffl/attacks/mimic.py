"""Mimic: all colluders copy one honest client, which then counts for many.

    μ_t = (t·μ_{t−1} + mean_i x_i) / (t + 1)                     mean of the rounds so far
    u_t = Σ_i ⟨x_i − μ_t, z_{t−1}⟩ · (x_i − μ_t)                 a power iteration per round
    z_t ∝ t·z_{t−1} + u_t/‖u_t‖,  ‖z_t‖ = 1
    victim = argmax_i ⟨x_i, z_t⟩

z approaches the direction in which honest clients differ most; after the warm-up, the victim is
fixed. No crafted row is an outlier: the damage is that the other clients count less.

Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing
    Sai Praneeth Karimireddy, Lie He, Martin Jaggi. ICLR 2022.

The recursion is that of the authors' code, which takes the signed projection of the current round;
the paper's text could not be verified. z starts at random. Deviations: tffl's clients may be absent
from a round; an absent victim is replaced by the client with the largest projection on z, for
that round. Only trainable columns count. The lowest client id wins a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import InformedAttack
from tffl.attacks.statistics import Line, mean, per_coordinate
from tffl.core import seeds
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def updated_direction(
    direction: np.ndarray, center: np.ndarray, seen: Updates, rounds: int
) -> np.ndarray:
    """Returns the direction of greatest variance, float32 `[d]`, after one more round.

    Args:
      direction: z so far, float32 `[d]`.
      center: μ, float32 `[d]`, this round included.
      seen: The round's honest updates.
      rounds: t, the number of rounds that are part of z.
    """
    # Line measures (μ − x_i)ᵀz; the two signs of u cancel.
    weights = Line.of(seen, center, direction).linear
    pull = weights.sum() * center.astype(np.float64)
    pull -= per_coordinate(seen, lambda part: np.einsum("i,ij->j", weights, part))[0]
    length = np.linalg.norm(pull)
    if not length > 0:
        return direction
    new = rounds * direction.astype(np.float64) + pull / length
    return (new / np.linalg.norm(new)).astype(np.float32)


def projections(seen: Updates, direction: np.ndarray) -> np.ndarray:
    """Returns ⟨x_i, z⟩ over the trainable columns, float64 `[n]`."""
    return -Line.of(seen, np.zeros_like(direction), direction).linear


def updated_memory(seen: Updates, state: State) -> State:
    """Returns the attackers' memory after one more round of the warm-up."""
    rounds = int(state["rounds"][0])
    center = (rounds * state["center"] + mean(seen)) / np.float32(rounds + 1)
    direction = updated_direction(state["direction"], center, seen, rounds)
    victim = projections(seen, direction).argmax()
    return {
        "direction": direction,
        "center": center,
        "rounds": np.array([rounds + 1], np.int64),
        "victim": np.array([seen.client_ids[victim]], np.int64),
    }


def fixed_victim(seen: Updates, adversary: Adversary) -> int:
    """Returns the row of the seen client that comes first in an order drawn once per experiment."""
    order = seeds.generator(adversary.seed, "mimic victim").permutation(adversary.clients)
    return int(np.argsort(order)[seen.client_ids].argmin())


@dataclass(frozen=True)
class Mimic(InformedAttack):
    """Copies the update of one honest client, the same for all colluders.

    Attributes:
      victim: `max-variance` copies the client farthest out in the direction of greatest variance;
        `fixed` always copies the same one, drawn at random (if it is absent, the next one drawn).
      warmup: Rounds of attack after which the victim of `max-variance` stays the same. The authors'
        code counts iterations of SGD, of which a round has many.

    >>> rows = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [9.0, 0.0]])
    >>> sent = Mimic(victim="fixed").poison_rows(rows, malicious=[0])
    >>> sent[0].tolist() in sent[1:].tolist()
    True
    """

    victim: Literal["max-variance", "fixed"] = "max-variance"
    warmup: Annotated[int, Field(ge=1)] = 5

    reference: ClassVar[str] = (
        "Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, "
        "ICLR 2022"
    )

    def init(self, adversary: Adversary) -> State:
        """Returns a random direction, and neither a mean nor a victim yet."""
        if self.victim == "fixed":
            return {}
        generator = seeds.generator(adversary.seed, "mimic direction")
        direction = generator.standard_normal(adversary.layout.size, dtype=np.float32)
        direction[~adversary.layout.trainable] = 0
        return {
            "direction": direction / np.linalg.norm(direction),
            "center": np.zeros_like(direction),
            "rounds": np.zeros(1, np.int64),
            "victim": np.full(1, -1, np.int64),
        }

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` of the victim."""
        seen = self.seen(updates, malicious, adversary)
        if self.victim == "fixed":
            return seen.row(fixed_victim(seen, adversary))[None], state
        if state["rounds"][0] < self.warmup:
            state = updated_memory(seen, state)
        present = np.flatnonzero(seen.client_ids == state["victim"][0])
        row = present[0] if len(present) else projections(seen, state["direction"]).argmax()
        return seen.row(int(row))[None], state

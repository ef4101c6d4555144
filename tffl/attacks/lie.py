"""A little is enough: all colluders send a vector just inside the honest spread.

    s = ⌊n/2 + 1⌋ − m                 honest clients needed for a majority
    z = Φ⁻¹((n − m − s) / (n − m))    s honest clients lie beyond μ − zσ
    Δ ← μ − zσ                        per coordinate

n participants, m of them malicious; μ and σ of the updates that the attackers see.

A Little Is Enough: Circumventing Defenses For Distributed Learning
    Moran Baruch, Gilad Baruch, Yoav Goldberg. NeurIPS 2019.

Implementations disagree: μ + zσ in place of μ − zσ; statistics of the corrupted workers (the paper;
`knows = "colluders"`) or of all honest ones (most evaluations; the default here); σ with n or n − 1
below the sum. tffl subtracts and divides by n, as the authors' code.

The paper does not say what happens at the formula's limits. With few attackers, z is negative: s
honest clients lie beyond the row only on the other side of the mean. tffl then takes z = 0, which
sends the mean, and refuses an experiment in which every round would have z = 0: set `z`. With s ≤
0, the attackers are the majority themselves, and the formula does not limit z; tffl takes s = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import PARTICIPANTS, InformedAttack
from tffl.attacks.statistics import per_coordinate
from tffl.core.errors import require
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def largest_z(participants: int, malicious: int) -> float:
    """Returns z of the paper's formula, at least 0.

    >>> round(largest_z(50, 24), 3), round(largest_z(100, 20), 3), largest_z(10, 1)
    (1.426, 0.286, 0.0)
    """
    honest = participants - malicious
    supporters = max(participants // 2 + 1 - malicious, 1)
    if honest <= supporters:
        return 0.0
    return max(0.0, NormalDist().inv_cdf((honest - supporters) / honest))


@dataclass(frozen=True)
class Lie(InformedAttack):
    """Sends mean minus z standard deviations, all colluders the same ("a little is enough").

    Attributes:
      z: Standard deviations from the mean; if absent, by the paper's formula from the number of
        participants and of malicious ones among them. Common are 0.3 to 1.5.

    >>> rows = np.array([[0.0, 0.0], [1.0, 2.0], [1.0, 4.0], [3.0, 2.0], [3.0, 4.0]])
    >>> Lie(z=0.5).poison_rows(rows, malicious=[0])[0]  # the others: mean 2 and 3, deviation 1
    array([1.5, 2.5], dtype=float32)
    """

    z: Annotated[float, Field(allow_inf_nan=False)] | None = None

    reference: ClassVar[str] = (
        "Baruch et al., A Little Is Enough: Circumventing Defenses For Distributed Learning, "
        "NeurIPS 2019"
    )
    knowledge: ClassVar[tuple[str, ...]] = (*InformedAttack.knowledge, PARTICIPANTS)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options."""
        words = super().declared_knowledge()
        return words if self.z is None else tuple(word for word in words if word != PARTICIPANTS)

    def check_clients(self, malicious: int, participants: int) -> None:
        """Raises `UsageError` if the formula gives z = 0 in every round."""
        super().check_clients(malicious, participants)
        most = min(malicious, participants)
        require(
            self.z is not None
            or malicious == 0
            or any(largest_z(participants, count) > 0 for count in range(1, most + 1)),
            f"lie's formula gives z = 0 for {most} malicious of {participants} participants, and "
            "would send the honest mean: set attack.z, such as 1.0, or attack with more clients",
        )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        z = largest_z(len(updates), int(malicious.sum())) if self.z is None else self.z
        seen = self.seen(updates, malicious, adversary)
        return per_coordinate(seen, lambda part: part.mean(axis=0) - z * part.std(axis=0)), state

"""Non-finite: rows of NaN or infinity, which a careless server adds to its model.

    Δ_ij ← NaN, ∞ or −∞   where the attack may modify column j

No paper: a regression test for servers. One such number makes a mean worthless, so
`poisoning_ratio` can be as small as a single parameter.

ByzFL, a library for robust federated learning, has an attack that sends infinity (Inf).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from tffl.attacks.base import State
from tffl.attacks.model_attack import ModelAttack
from tffl.attacks.statistics import generators, per_coordinate
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

NUMBERS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


@dataclass(frozen=True)
class NonFinite(ModelAttack):
    """Sends NaN or infinity in every column that it may modify.

    Attributes:
      number: The number; `mixed` draws one of the three for each coordinate of each client. The
        share of columns is `poisoning_ratio`, at least one column.

    >>> NonFinite(number="-inf").poison_rows(np.ones((2, 3)), malicious=[0])
    array([[-inf, -inf, -inf],
           [  1.,   1.,   1.]], dtype=float32)
    """

    number: Literal["nan", "inf", "-inf", "mixed"] = "nan"

    reference: ClassVar[str] = (
        "González et al., ByzFL: Research Framework for Robust Federated Learning, 2025"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the rows `[m, d]`, or the one row `[1, d]` of a single number."""
        own = updates.select(malicious)
        if self.number != "mixed":
            number = NUMBERS[self.number]
            return per_coordinate(own, lambda part: np.full(part.shape[1], number)), state
        sources, numbers = generators(own, adversary, "non-finite"), list(NUMBERS.values())

        def mixed(part: np.ndarray) -> np.ndarray:
            return np.stack([source.choice(numbers, part.shape[1]) for source in sources])

        return per_coordinate(own, mixed), state

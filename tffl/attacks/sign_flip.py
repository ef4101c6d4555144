"""Sign flip: malicious clients send the opposite of what was learned.

    own:   Δ_i ← −c·Δ_i
    mean:  Δ_i ← −c·mean of the honest updates

RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from Heterogeneous
Datasets
    Liping Li, Wei Xu, Tianyi Chen, Georgios B. Giannakis, Qing Ling. AAAI 2019.

Implementations disagree on what is flipped, hence the option; with `mean` the attack is the inner
product manipulation with ε = c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import OWN_DATA, State
from tffl.attacks.model_attack import InformedAttack
from tffl.attacks.statistics import per_coordinate
from tffl.core.errors import require
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class SignFlip(InformedAttack):
    """Sends the negated own update, or the negated mean of the honest ones.

    Attributes:
      flips: `own` negates what each client trained itself, and reads nothing else; `mean` negates
        the unweighted mean of the updates that the attackers see (`knows`).
      strength: c > 0.

    Raises:
      UsageError: `spread` is set, and `flips` is `own`.

    >>> rows = np.array([[1.0, 2.0], [0.0, 4.0], [2.0, 4.0]])
    >>> SignFlip().poison_rows(rows, malicious=[0])[0]
    array([-1., -2.], dtype=float32)
    >>> SignFlip(flips="mean", strength=3).poison_rows(rows, malicious=[0])[0]
    array([ -3., -12.], dtype=float32)
    """

    flips: Literal["own", "mean"] = "own"
    strength: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Li et al., RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning "
        "from Heterogeneous Datasets, AAAI 2019"
    )

    def __post_init__(self) -> None:
        """Checks the options, and that only one row for all is varied."""
        super().__post_init__()
        require(
            self.flips == "mean" or self.spread == "none",
            f"attack.spread = {self.spread!r} needs attack.flips = 'mean': attackers who flip "
            "their own updates send different rows already",
        )

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options."""
        return super().declared_knowledge() if self.flips == "mean" else (OWN_DATA,)

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the rows `[m, d]`, or `[1, d]` with `mean`."""
        if self.flips == "own":
            own = updates.select(malicious)
            return per_coordinate(own, lambda part: -self.strength * part), state
        seen = self.seen(updates, malicious, adversary)
        return per_coordinate(seen, lambda part: -self.strength * part.mean(axis=0)), state

"""Inner product manipulation: the aggregate points away from the honest direction.

    Δ ← −ε·mean of the honest updates

Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation
    Cong Xie, Oluwasanmi Koyejo, Indranil Gupta. UAI 2019.

With a small ε the crafted rows lie among the honest ones and are hard to distinguish from them; the
sign of a plain mean changes only if ε > (n − m)/m. The literature uses 0.1, 0.5, 1 and 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import InformedAttack
from tffl.attacks.statistics import per_coordinate
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class Ipm(InformedAttack):
    """Sends −ε times the honest mean, all colluders the same (inner product manipulation).

    Attributes:
      epsilon: ε > 0.

    >>> rows = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    >>> Ipm(epsilon=0.1).poison_rows(rows, malicious=[0])[0]
    array([-0.2, -0.3], dtype=float32)
    """

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5

    reference: ClassVar[str] = (
        "Xie et al., Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product "
        "Manipulation, UAI 2019"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        seen = self.seen(updates, malicious, adversary)
        return per_coordinate(seen, lambda part: -self.epsilon * part.mean(axis=0)), state

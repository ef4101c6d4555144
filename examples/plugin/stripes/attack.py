"""Recoil: all attackers send the opposite of what they learned together.

u_i ← −factor · mean of the attackers' own updates
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import OWN_DATA, State
from tffl.attacks.model_attack import ModelAttack
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class Recoil(ModelAttack):
    """Sends the attackers' mean update with its sign changed.

    Attributes:
      factor: Length of the row, relative to the mean.
    """

    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0

    knowledge: ClassVar[tuple[str, ...]] = (OWN_DATA,)
    reference: ClassVar[str] = "tffl's example of a plug-in"

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns one row float32 `[1, d]` that all attackers send."""
        own = updates.select(malicious)
        mean = own.mean(np.full(len(own), 1 / len(own)))
        return np.float32(-self.factor) * mean[None], state

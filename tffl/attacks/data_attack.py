"""Attacks on data: malicious clients train poisoned samples, and may scale what they trained.

poisoned samples → local training → Δ_i ← scale · Δ_i
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from tffl.attacks.base import Attack, State
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class DataAttack(Attack):
    """Poisons the data of the malicious clients, which train on it as honest clients do.

    A subclass overrides `poison`, and `success_set` if the attack has a target.

    Attributes:
      scale: Factor of the malicious updates; clients / malicious clients replaces the model.

    >>> DataAttack(scale=3).poison_rows(np.array([[1.0, 2.0], [1.0, 1.0]]), malicious=[0])
    array([[3., 6.],
           [1., 1.]], dtype=float32)
    """

    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0

    def changes_updates(self) -> bool:
        """Says whether every attacker sends something other than what it trained."""
        return super().changes_updates() or self.scale != 1

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the malicious updates, scaled."""
        return scaled(updates.select(malicious), self.scale), state


def scaled(updates: Updates, scale: float) -> np.ndarray | None:
    """Returns updates multiplied by a factor, float32 `[n, d]`; None if the factor is 1.

    Δ_i ← scale · Δ_i, "model replacement". Only trainable columns are scaled: a scaled moving
    variance of BatchNorm could turn negative, and the joint model into NaN, which does not serve an
    attacker with a target.

    Source: Bagdasaryan et al., How to Backdoor Federated Learning, AISTATS 2020, section 4.2.
    """
    if scale == 1.0:
        return None
    factors = np.where(updates.layout.trainable, np.float64(scale), 1.0)
    rows = np.empty((len(updates), updates.layout.size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for row in range(len(updates)):
            rows[row] = updates.row(row) * factors
    return rows

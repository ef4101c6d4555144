"""Scaling: what a malicious client trained, multiplied until it replaces the global model.

    Δ_i ← γ·Δ_i,   γ = n/m

With plain averaging and server learning rate 1, m colluders of n participants that scale by n/m
together outweigh the rest: the new model is approximately the one that they trained. It is usually
joined with an attack on data, as in `label-flip+scaling`.

How to Backdoor Federated Learning
    Eugene Bagdasaryan, Andreas Veit, Yiqing Hua, Deborah Estrin, Vitaly Shmatikov. AISTATS 2020.

Deviations: the paper has one attacker and γ = n/η, with server learning rate η; several colluders
share the work here. BatchNorm statistics are not scaled: a moving variance could turn negative.
The paper's optional loss term against anomaly detection is not part of this attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import OWN_DATA, State
from tffl.attacks.model_attack import PARTICIPANTS, ModelAttack
from tffl.attacks.statistics import per_coordinate
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class Scaling(ModelAttack):
    """Multiplies each malicious client's own trained update, to replace the global model.

    Attributes:
      factor: γ; if absent, the round's participants divided by the malicious ones among them.

    >>> rows = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    >>> Scaling().poison_rows(rows, malicious=[0]).mean(axis=0)
    array([0., 1.], dtype=float32)
    """

    factor: Annotated[float, Field(allow_inf_nan=False)] | None = None

    reference: ClassVar[str] = (
        "Bagdasaryan et al., How to Backdoor Federated Learning, AISTATS 2020"
    )
    knowledge: ClassVar[tuple[str, ...]] = (OWN_DATA, PARTICIPANTS)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what the attack reads with these options."""
        return self.knowledge if self.factor is None else (OWN_DATA,)

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the scaled rows `[m, d]`."""
        replacing = len(updates) / np.count_nonzero(malicious)
        factor = replacing if self.factor is None else self.factor
        return per_coordinate(updates.select(malicious), lambda part: factor * part), state

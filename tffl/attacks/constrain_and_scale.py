"""Constrain-and-scale: a backdoor is trained near the global model, and scaled up to a bound.

    every step:  w ← w − η ∇(α·L(w) + (1 − α)·‖w − w_t‖),   then  w ← P_ε(w)     optional
    Δ ← γ·(w − w_t),   γ = n/m,   at most S/‖w − w_t‖

L is the cross-entropy on the poisoned data, and P_ε the projection onto the ball of radius ε around
the global weights w_t; n clients take part, m of them malicious. Norms are over trainable columns.

How to Backdoor Federated Learning
    Eugene Bagdasaryan, Andreas Veit, Yiqing Hua, Deborah Estrin, Vitaly Shmatikov. AISTATS 2020.
    Loss and n/m as in the authors' published code (ebagdasa/backdoor_federated_learning,
    training.py), whose anomaly term is the Euclidean distance, not its square.
Attack of the Tails: Yes, You Really Can Backdoor Federated Learning
    Hongyi Wang, Kartik Sreenivasan, Shashank Rajput, Harit Vishwakarma, Saurabh Agarwal,
    Jy-yong Sohn, Kangwook Lee, Dimitris Papailiopoulos. NeurIPS 2020. (The projection, "PGD".)

Deviations: several colluders share the scaling, as in the published code. BatchNorm statistics are
not scaled, as a moving variance could turn negative. Left out are the early end of training when
the backdoor is learned, and the learning rate that falls during it. The paper's second variant,
train-and-scale, has α = 1 and a bound S; here γ is never more than replaces the model, unless
`factor` says so. The published config has α = 1 and leaves the choice to its user.

This is a way to train on poisoned data, not a way to poison it: `semantic-backdoor+
constrain-and-scale` is the paper's, and `constrain-and-scale` alone stands for
`patch-backdoor+constrain-and-scale`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import OWN_DATA, State
from tffl.attacks.bounded import length
from tffl.attacks.model_attack import PARTICIPANTS, ModelAttack
from tffl.attacks.parts import retrained
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def scaled_within(
    rows: np.ndarray, factor: float, bound: float, trainable: np.ndarray
) -> np.ndarray:
    """Returns rows multiplied by a factor, or by less, so that none is longer than a bound.

    Args:
      rows: float32 `[m, d]`.
      factor: Of every row, unless the bound allows less.
      bound: Largest Euclidean norm over the trainable columns; infinity for none.
      trainable: bool `[d]`.

    >>> rows = np.array([[3, 4], [0.3, 0.4]], np.float32)
    >>> scaled_within(rows, factor=2, bound=2.5, trainable=np.ones(2, bool))
    array([[1.5, 2. ],
           [0.6, 0.8]], dtype=float32)
    """
    result = np.empty_like(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        for row, out in zip(rows, result, strict=True):
            norm = abs(factor) * length(row[trainable].astype(np.float64))
            out[:] = row * np.float32(factor * (bound / norm if norm > bound else 1))
    return result


@dataclass(frozen=True)
class ConstrainAndScale(ModelAttack):
    """Trains poisoned data near the global model, and scales the update up to a bound.

    Attributes:
      alpha: α, weight of the loss; 1 − α is that of the distance to the global model.
      radius: ε, the largest Euclidean norm of the update in training, kept by projection after
        every step ("PGD"); 0 is no bound.
      factor: γ; if absent, the round's participants divided by the malicious ones among them.
      bound: S, the largest Euclidean norm of the update that is sent; 0 is no bound.
      epochs: Local epochs of the attackers; if absent, as many as honest clients train.
      learning_rate: Learning rate of the attackers; if absent, that of honest clients.

    >>> from types import SimpleNamespace
    >>> adversary = SimpleNamespace(
    ...     seed=0, train=lambda start, client, round, **_: np.array([3, 4], np.float32)
    ... )
    >>> updates, malicious = Updates.of_rows(np.zeros((4, 2))), np.arange(4) == 0
    >>> ConstrainAndScale().send(updates, malicious, adversary, {})[0]
    array([[12., 16.]], dtype=float32)
    >>> ConstrainAndScale(bound=10).send(updates, malicious, adversary, {})[0]
    array([[6., 8.]], dtype=float32)
    """

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    factor: Annotated[float, Field(allow_inf_nan=False)] | None = None
    bound: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    retrains: ClassVar[bool] = True
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
        """Returns what each malicious client trains under the constraints, scaled, `[m, d]`."""
        rows = retrained(
            updates.select(malicious),
            adversary,
            radius=self.radius or np.inf,
            alpha=self.alpha,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
        )
        factor = len(updates) / len(rows) if self.factor is None else self.factor
        trainable = updates.layout.trainable
        return scaled_within(rows, factor, self.bound or np.inf, trainable), state

"""Neurotoxin: a backdoor is written where honest clients hardly ever write, so that it lasts.

    u  = w_t − w_{t−1}                       the last global update
    S  = all coordinates but the k·d with the largest |u_j|
    every step:  w ← w_t + (w − w_t)·1_S·min(1, ρ/‖(w − w_t)·1_S‖)

Neurotoxin: Durable Backdoors in Federated Learning
    Zhengming Zhang, Ashwinee Panda, Linyue Song, Yaoqing Yang, Michael W. Mahoney, Prateek Mittal,
    Kannan Ramchandran, Joseph Gonzalez. ICML 2022.

The paper describes the last update as the guide; the authors' published code instead measures the
gradient of the attackers' own clean data. tffl follows the paper. The clients' optimizers move each
weight by itself, so confining weights equals masking gradients.

The attackers know the global weights of the rounds in which they attack. If they pause, u is the
change over all rounds since then; in their first round there is no u, and no coordinate is left
out. They assume that the server has one global model.

This is a way to train on poisoned data, not a way to poison it: `dba+neurotoxin` and the like join
both, and `neurotoxin` alone stands for `patch-backdoor+neurotoxin`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import ModelAttack
from tffl.attacks.parts import retrained
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def least_used(change: np.ndarray, candidates: np.ndarray, share: float) -> np.ndarray:
    """Returns bool `[d]`: the candidates without the share of them that changed most.

    A coordinate that did not change is never left out. Of equal changes, the first is left out.

    Args:
      change: float32 `[d]`.
      candidates: bool `[d]`.
      share: Share of the candidates to leave out, rounded to the nearest whole number (half up).

    >>> least_used(np.array([1.0, -5.0, 2.0, 9.0]), np.array([True, True, True, False]), 0.34)
    array([ True, False,  True, False])
    """
    columns = np.flatnonzero(candidates)
    size = np.abs(change[columns])
    most = columns[np.argsort(-size, kind="stable")[: int(share * len(columns) + 0.5)]]
    kept = candidates.copy()
    kept[most] = change[most] == 0
    return kept


@dataclass(frozen=True)
class Neurotoxin(ModelAttack):
    """Trains poisoned data only into the weights that honest clients change least.

    Attributes:
      masked: k, share of the trainable weights that stay as they are: those that the last global
        update changed most. The authors leave out 0.01 to 0.05.
      radius: ρ, the largest Euclidean norm of a malicious update over its trainable columns, kept
        in training after every step; 0 is no bound. The authors' setting is 0.2.
      scale: Factor of the malicious updates, after training; with `radius`, the norm is at most
        `scale · radius`.

    >>> last = {"start": np.zeros(4, np.float32)}
    >>> now = Updates.of_rows(np.zeros((1, 4)), start=np.array([3.0, 0.1, -5.0, 0.2]))
    >>> Neurotoxin(masked=0.5).mask(now, last)
    array([False,  True, False,  True])
    """

    masked: Annotated[float, Field(ge=0, lt=1)] = 0.05
    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0

    retrains: ClassVar[bool] = True
    reference: ClassVar[str] = (
        "Zhang et al., Neurotoxin: Durable Backdoors in Federated Learning, ICML 2022"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns what each malicious client trains under the constraints, `[m, d]`."""
        mask, own = self.mask(updates, state), updates.select(malicious)
        rows = retrained(own, adversary, mask=mask, radius=self.radius or np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            rows *= self.scale
        return rows, state

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the rows, and remembers the global weights that they start from."""
        rows, _ = super().send(updates, malicious, adversary, state)
        return rows, {"start": updates.start}

    def mask(self, updates: Updates, state: State) -> np.ndarray:
        """Returns bool `[d]`: the trainable columns that may change."""
        trainable = updates.layout.trainable
        if "start" not in state:
            return trainable
        with np.errstate(invalid="ignore"):
            return least_used(updates.start - state["start"], trainable, self.masked)

"""MPAF: fake clients pull the global model towards a fixed random one.

    Δ ← λ·(w' − w_t)

w' is the base model, chosen once for its low accuracy: freshly initialized weights.

MPAF: Model Poisoning Attacks to Federated Learning based on Fake Clients
    Xiaoyu Cao, Neil Zhenqiang Gong. CVPR Workshops 2022.

The paper adds fake clients to a federation; here they are malicious clients among the registered
ones, and do not use their data. λ = 1e6 is taken from a third-party implementation and from memory;
the paper's text could not be verified. BatchNorm statistics stay as trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import CommonRowAttack
from tffl.core import seeds
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def random_weights(adversary: Adversary) -> np.ndarray:
    """Returns freshly initialized weights float32 `[d]` of the global model's network."""
    from tffl.models.build import random_network

    model, seed = adversary.config.model, seeds.integer(adversary.seed, "mpaf base model")
    fresh = random_network(model, adversary.model.input_shape[1:], adversary.classes, seed)
    return adversary.layout.flatten(fresh.get_weights())


@dataclass(frozen=True)
class Mpaf(CommonRowAttack):
    """Sends the difference from the global model to a fixed random one, amplified.

    Attributes:
      amplification: λ > 0. With plain averaging, n/m reaches the base model in one round.

    >>> updates = Updates.of_rows(np.zeros((3, 2)), start=np.array([1.0, 1.0]))
    >>> base, nobody = {"base": np.array([1.5, 0.0])}, None  # the rows need the base model only
    >>> Mpaf(amplification=10).craft(updates, np.array([True, False, False]), nobody, base)[0]
    array([[  5., -10.]], dtype=float32)
    """

    amplification: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e6

    reference: ClassVar[str] = (
        "Cao and Gong, MPAF: Model Poisoning Attacks to Federated Learning based on Fake Clients, "
        "CVPR Workshops 2022"
    )

    def init(self, adversary: Adversary) -> State:
        """Returns the base model, float32 `[d]`."""
        return {"base": random_weights(adversary)}

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        way = state["base"].astype(np.float64) - updates.start
        with np.errstate(over="ignore"):
            return (self.amplification * way)[None].astype(np.float32), state

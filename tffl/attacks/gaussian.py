"""Gaussian: malicious clients send noise, or add it to what they trained.

    zero:  Δ_i ← N(μ, σ²)          per coordinate
    own:   Δ_i ← Δ_i + N(μ, σ²)

Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent
    Peva Blanchard, El Mahdi El Mhamdi, Rachid Guerraoui, Julien Stainer. NIPS 2017. Section 6.

The paper sends gradients from a Gaussian with mean 0 and standard deviation 200. Implementations
disagree on whether noise replaces or is added, and on the scale; others draw from the mean and
deviation of the honest updates, which tffl does not offer. Every client draws its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import ModelAttack
from tffl.attacks.statistics import generators, per_coordinate
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class Gaussian(ModelAttack):
    """Sends Gaussian noise instead of an update, or adds it to the own one.

    Attributes:
      around: `zero` replaces the update by noise, `own` adds noise to it.
      mean: μ.
      std: σ. Weights of trained networks are mostly below 1, and updates far below.

    >>> sent = Gaussian(mean=5, std=0.1).poison_rows(np.zeros((4, 10_000)), malicious=[0])
    >>> bool(abs(sent[0].mean() - 5) < 0.01), bool(abs(sent[0].std() - 0.1) < 0.01)
    (True, True)
    """

    around: Literal["zero", "own"] = "zero"
    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, "
        "NIPS 2017"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the rows `[m, d]`."""
        own = updates.select(malicious)
        sources = generators(own, adversary, "gaussian")

        def noisy(part: np.ndarray) -> np.ndarray:
            noise = np.stack([source.standard_normal(part.shape[1]) for source in sources])
            noise = self.mean + self.std * noise
            return noise if self.around == "zero" else part + noise

        return per_coordinate(own, noisy), state

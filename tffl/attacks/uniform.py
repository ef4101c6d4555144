"""Uniform: noise from an interval on the weights that a malicious client trained.

    w_i ← w_i + U(low, high),   by default U(1, 2)

Detecting Poisoning Attacks on Federated Learning Using Gradient-Weighted Class Activation Mapping
    Jingjing Zheng, Kai Li, Xin Yuan, Wei Ni, Eduardo Tovar. WWW Companion 2024.

This is the attack of the code released with the paper (and with its successor, GradCAM-AE), not of
its text. The code adds the noise to a benign model; here that is the model that the malicious
client trained itself. As weights are start plus update, the noise can be added to the update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.model_attack import ModelAttack
from tffl.attacks.statistics import generators, per_coordinate
from tffl.core.errors import require
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class Uniform(ModelAttack):
    """Adds uniform noise to the own trained weights; its mean need not be 0.

    Attributes:
      low: Lower end of the interval.
      high: Its upper end, above `low`.

    Raises:
      UsageError: The interval is empty.

    >>> sent = Uniform(low=1, high=2).poison_rows(np.zeros((2, 1000)), malicious=[0])
    >>> bool((sent[0] >= 1).all() and (sent[0] <= 2).all()), bool(sent[1].any())
    (True, False)
    """

    low: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    high: Annotated[float, Field(allow_inf_nan=False)] = 2.0

    reference: ClassVar[str] = (
        "Zheng et al., Detecting Poisoning Attacks on Federated Learning Using Gradient-Weighted "
        "Class Activation Mapping, WWW Companion 2024"
    )

    def __post_init__(self) -> None:
        """Checks the options, and that the interval is not empty."""
        super().__post_init__()
        require(
            self.low < self.high,
            f"attack.low = {self.low} must be below attack.high = {self.high}",
        )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the rows `[m, d]`."""
        own = updates.select(malicious)
        sources = generators(own, adversary, "uniform")

        def noisy(part: np.ndarray) -> np.ndarray:
            noise = np.stack([source.random(part.shape[1]) for source in sources])
            return part + self.low + (self.high - self.low) * noise

        return per_coordinate(own, noisy), state

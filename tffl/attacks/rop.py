"""Relocated orthogonal perturbation: beside the last step, where clipping around it does not reach.

    m = w_t − w_{t−1}                       the last global step, 0 in the first round
    c = mean of the honest updates
    u = λ·m + (1 − λ)·c                     the reference;  u = c in the first round
    p = 1 − (1ᵀu / uᵀu)·u                   what the vector of ones has orthogonal to it
    Δ ← π·m + (1 − π)·c + z·r · (cos θ · u/‖u‖ − sin θ · p/‖p‖)

π = 1 moves the attack to the point around which centered clipping clips, where its bound on the
norm does not limit the angle; θ = 270° is orthogonal to the reference, and 180° against it. r is
the honest updates' root mean square distance from c.

Byzantines can also Learn from History: Fall of Centered Clipping in Federated Learning
    Kerem Özfatura, Emre Özfatura, Alptekin Küpçü, Deniz Gündüz. IEEE Transactions on Information
    Forensics and Security, 2024.

This is the rule of the authors' program (CRYPTO-KU/FL-Byzantine-Library, `attacks/rop.py`), with
its defaults for π, λ and θ; of the paper's text only the abstract could be read. The program works
on momentums, which a server subtracts; tffl's updates are added, so the sign of p is the opposite
one, and θ means the same. Deviations: the program adds a vector of length z, which fits momentums
(z by the formula of "A little is enough"); updates have another scale, so that tffl measures z in
honest distances, with 1 by default. The program's attackers read the server's aggregate; here they
see it in the global weights, and m is the mean step per round since they last took part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.bounded import distances_to, require_distances, unit
from tffl.attacks.model_attack import InformedAttack
from tffl.attacks.parts import last_step, seen_weights
from tffl.attacks.statistics import mean
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def turned(reference: np.ndarray, start: np.ndarray, angle: float) -> np.ndarray:
    """Returns a unit vector at an angle to a reference, in its plane with another vector.

    Args:
      reference: u, float64 `[d]`.
      start: The vector that is made orthogonal to u, float64 `[d]`; the part that is orthogonal
        points against it at 90°, and with it at 270°.
      angle: θ in degrees.

    >>> turned(np.array([2.0, 0.0]), np.ones(2), angle=270).round(6) + 0.0
    array([0., 1.])
    """
    along = unit(reference)
    across = unit(start - float(np.einsum("j,j->", start, along)) * along)
    return math.cos(math.radians(angle)) * along - math.sin(math.radians(angle)) * across


@dataclass(frozen=True)
class Rop(InformedAttack):
    """Sends a perturbation of the last global step, at an angle to it (ROP).

    Attributes:
      z: Length of the perturbation, relative to the honest updates' root mean square distance from
        their mean.
      location: π, where the perturbation is added: 1 at the last global step, 0 at the honest mean.
      memory: λ, the share of the last global step in the reference; the rest is the honest mean.
      angle: θ, the angle to the reference in degrees.

    There is no global step yet, and the honest mean is (2, 0):

    >>> rows = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    >>> Rop(z=3).poison_rows(rows, malicious=[0])[0].round(6) + 0.0
    array([0., 3.], dtype=float32)
    """

    z: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    location: Annotated[float, Field(ge=0, le=1)] = 1.0
    memory: Annotated[float, Field(ge=0, le=1)] = 0.9
    angle: Annotated[float, Field(ge=0, le=360)] = 270.0

    reference: ClassVar[str] = (
        "Özfatura et al., Byzantines can also Learn from History: Fall of Centered Clipping in "
        "Federated Learning, IEEE TIFS 2024"
    )

    def check_clients(self, malicious: int, participants: int) -> None:
        """Raises `UsageError` if only one update can ever be seen."""
        super().check_clients(malicious, participants)
        require_distances(self, malicious)

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send."""
        seen = self.seen(updates, malicious, adversary)
        center, step = mean(seen).astype(np.float64), last_step(updates, state)
        radius = float(np.sqrt(np.mean(distances_to(seen, center) ** 2)))
        ones = updates.layout.trainable.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            if step is None:
                place, reference = (1 - self.location) * center, center
            else:
                place = self.location * step + (1 - self.location) * center
                reference = self.memory * step + (1 - self.memory) * center
            row = place + self.z * radius * turned(reference, ones, self.angle)
            return row.astype(np.float32)[None], seen_weights(updates)

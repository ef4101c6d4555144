"""What an attack on a plain matrix has: colluders who own neither a model nor data."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from tffl.attacks.adversary import Adversary
from tffl.core.errors import UsageError, require
from tffl.core.updates import Updates


class Colluders(Adversary):
    """The part of an adversary that a plain matrix gives: ids, columns and random draws.

    Attributes:
      attack: The attack's name, for messages.
    """

    seed = 0
    clients = 0

    def __init__(self, attack: str, updates: Updates, ids: np.ndarray, seed: int) -> None:
        self.attack, self.layout, self.ids = attack, updates.layout, ids
        self.seed, self.clients = seed, len(updates)

    def __getattr__(self, name: str) -> NoReturn:
        """Raises `UsageError`: any other attribute of `Adversary` is a model or data."""
        raise UsageError(
            f"{self.attack} needs a model and the attackers' data, not rows alone: use it in "
            "tffl.simulate"
        )


def malicious_mask(malicious: np.ndarray, n: int) -> np.ndarray:
    """Returns bool `[n]` for positions, or for bool `[n]` itself."""
    if malicious.dtype == bool and malicious.shape == (n,):
        return malicious
    whole = malicious.ndim == 1 and (malicious.dtype.kind in "iu" or malicious.size == 0)
    require(
        whole and bool(((malicious >= 0) & (malicious < n)).all()),
        f"malicious is not allowed: give positions from 0 to {n - 1}, or {n} booleans",
    )
    mask = np.zeros(n, bool)
    mask[malicious.astype(np.int64)] = True
    return mask

"""Attacks on a plain matrix, by colluders who own neither a model nor data."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from tffl.attacks.adversary import Adversary
from tffl.attacks.base import Attack
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


def poisoned(attack: Attack, updates: Updates, malicious: np.ndarray, seed: int) -> np.ndarray:
    """Returns the matrix float32 `[n, d]` that the server receives; see `Attack.poison_rows`."""
    name, n = type(attack).__name__, len(updates)
    mask = _mask(malicious, n)
    attack.check_clients(int(mask.sum()), n)
    adversary = Colluders(name, updates, np.flatnonzero(mask), seed)
    rows, _ = attack.send(updates, mask, adversary, attack.init(adversary))
    require(
        rows is not None or not mask.any(),
        f"{name} poisons data, and its clients send what they train on it, so that there is no row "
        "to change: use it in tffl.simulate",
    )
    matrix = np.array(updates.deltas)
    if rows is not None:
        matrix[mask] = rows
    return matrix


def _mask(malicious: np.ndarray, n: int) -> np.ndarray:
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

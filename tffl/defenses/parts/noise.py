"""Gaussian noise on an aggregate, the same for one seed and round."""

from __future__ import annotations

import numpy as np

from tffl.core import seeds
from tffl.core.updates import Updates
from tffl.defenses.server import Server


def add_noise(
    aggregate: np.ndarray, deviation: float, updates: Updates, server: Server, purpose: str
) -> None:
    """Adds Gaussian noise to the trainable columns, in place.

    Args:
      aggregate: float32 `[d]`.
      deviation: σ >= 0; with 0 nothing is drawn.
      updates: Of the round.
      server: Its seed decides the noise, with the round.
      purpose: The defense's name.
    """
    if not deviation:
        return
    generator = seeds.generator(server.seed, purpose, updates.round)
    for columns in updates.columns(trainable=True):
        noise = generator.standard_normal(columns.stop - columns.start)
        with np.errstate(over="ignore"):
            aggregate[columns] += deviation * noise

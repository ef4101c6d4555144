"""What attacks compute from updates: rows per coordinate, and distances along a line.

Everything is computed over the trainable columns, in blocks and in float64, and depends neither on
the number of threads nor on the block size. Values beyond float32 become infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tffl.core import seeds
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def per_coordinate(updates: Updates, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Computes new rows from the coordinates of some updates.

    Args:
      updates: n updates.
      function: Block float64 `[n, width]` → `[width]` or `[k, width]`. It is called for the blocks
        in their order, so that it may draw random numbers.

    Returns:
      float32 `[k, d]`, or `[1, d]`; 0 in columns that no gradient trains.
    """
    result = np.zeros((0, updates.layout.size), np.float32)
    with np.errstate(all="ignore"):
        for columns in updates.columns(trainable=True):
            values = np.atleast_2d(function(updates.block(columns).astype(np.float64)))
            if len(result) == 0:
                result = np.zeros((len(values), updates.layout.size), np.float32)
            result[:, columns] = values
    return result


def mean(updates: Updates) -> np.ndarray:
    """Returns the unweighted mean update, float32 `[d]`."""
    return per_coordinate(updates, lambda part: part.mean(axis=0))[0]


def generators(updates: Updates, adversary: Adversary, purpose: str) -> list[np.random.Generator]:
    """Returns one generator per update, each for its client and this round."""
    ids = updates.client_ids.tolist()
    return [seeds.generator(adversary.seed, purpose, updates.round, client) for client in ids]


@dataclass(frozen=True)
class Line:
    """Squared distances from a point that moves along a line to some updates.

        ‖a + γp − x_i‖² = ‖a − x_i‖² + 2γ·(a − x_i)ᵀp + γ²·‖p‖²

    With three numbers per update, no γ needs a further pass over the columns.

    Attributes:
      constant: ‖a − x_i‖², float64 `[n]`.
      linear: (a − x_i)ᵀp, float64 `[n]`.
      square: ‖p‖².
    """

    constant: np.ndarray
    linear: np.ndarray
    square: float

    @classmethod
    def of(cls, updates: Updates, point: np.ndarray, direction: np.ndarray) -> Line:
        """Measures the line from a point `[d]` in a direction `[d]`, on the trainable columns."""
        constant, linear, square = np.zeros(len(updates)), np.zeros(len(updates)), 0.0
        with np.errstate(all="ignore"):
            for columns in updates.columns(trainable=True):
                away = point[columns].astype(np.float64) - updates.block(columns)
                along = direction[columns].astype(np.float64)
                constant += np.einsum("ij,ij->i", away, away)
                linear += np.einsum("ij,j->i", away, along)
                square += float(np.einsum("j,j->", along, along))
        return cls(constant, linear, square)

    def at(self, step: float) -> np.ndarray:
        """Returns the squared distances float64 `[n]` at γ = `step`."""
        return np.maximum(self.constant + 2 * step * self.linear + step**2 * self.square, 0)

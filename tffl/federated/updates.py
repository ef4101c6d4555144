"""The client updates of one round: one matrix, a row per client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tffl.federated.layout import WeightLayout

BLOCK = 1 << 15
"""Columns that a blocked pass over the matrix handles at a time: few enough for a core's cache."""


@dataclass(frozen=True)
class Updates:
    """What a server receives in a round.

    The matrix holds differences, not weights: they are what rules and attacks speak about, and
    `start + deltas[i]` gives the weights back where maps or audits need a whole model.

    Attributes:
      round: 1-based.
      client_ids: int64 `[n]`, ascending.
      sample_counts: int64 `[n]`, as the clients claim them.
      start: float32 `[d]`, the global weights that the clients started from.
      deltas: float32 `[n, d]`, trained weights minus `start`.
      layout: What the columns are.
    """

    round: int
    client_ids: np.ndarray
    sample_counts: np.ndarray
    start: np.ndarray
    deltas: np.ndarray
    layout: WeightLayout

    def __len__(self) -> int:
        """Number of clients, n."""
        return len(self.client_ids)

    def weights(self, row: int) -> np.ndarray:
        """Returns the full weights `[d]` of the client in `row`."""
        return self.start + self.deltas[row]

    def columns(self) -> Iterator[slice]:
        """Yields column blocks, so that passes over the matrix need no copy of it."""
        for begin in range(0, self.deltas.shape[1], BLOCK):
            yield slice(begin, min(begin + BLOCK, self.deltas.shape[1]))

    def norms(self) -> np.ndarray:
        """Returns the Euclidean norm of each row, float64 `[n]`; inf or NaN where not finite."""
        total = np.zeros(len(self))
        with np.errstate(over="ignore", invalid="ignore"):
            for block in self.columns():
                part = self.deltas[:, block].astype(np.float64)
                total += np.einsum("ij,ij->i", part, part)
        return np.sqrt(total)

    def finite(self) -> np.ndarray:
        """Returns bool `[n]`: which rows hold neither NaN nor infinity."""
        result = np.ones(len(self), dtype=bool)
        for block in self.columns():
            result &= np.isfinite(self.deltas[:, block]).all(axis=1)
        return result

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """Returns the weighted mean update, float32 `[d]`.

        Rows of weight zero are left out, so that their NaN cannot reach the mean.

        Args:
          weights: float64 `[n]`, non-negative, sum 1.
        """
        chosen = np.flatnonzero(weights)
        factors = weights[chosen]
        result = np.empty_like(self.start)
        with np.errstate(over="ignore", invalid="ignore"):
            for block in self.columns():
                # Row by row in float64: exact enough, and, unlike a matrix product, the same
                # bits whatever the number of BLAS threads.
                total = np.zeros(block.stop - block.start)
                term = np.empty_like(total)
                for row, factor in zip(chosen, factors, strict=True):
                    total += np.multiply(self.deltas[row, block], factor, out=term)
                result[block] = total
        return result

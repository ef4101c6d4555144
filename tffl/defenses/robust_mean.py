"""Defenses that bound the influence of every client on the mean, instead of leaving clients out.

They accept every finite update, so that their result does not depend on a verdict. Whom they
suspect is still recorded; see `combining.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tffl.defenses.combining import Combined, Combining

__all__ = ["Combined", "RobustMean"]


@dataclass(frozen=True)
class RobustMean(Combining):
    """Combines all finite updates, and accepts them all.

    >>> @dataclass(frozen=True)
    ... class First(RobustMean):
    ...     def combine(self, updates, server, state):
    ...         weights = (np.arange(len(updates)) == 0).astype(float)
    ...         return Combined(updates.row(0), weights, 1 - weights), state
    >>> First().judge_rows(np.eye(3)).accepted.tolist()
    [True, True, True]
    """

    def kept(self, weights: np.ndarray) -> np.ndarray:
        """Keeps every row, whatever its weight."""
        return np.ones(len(weights), dtype=bool)

"""Defenses that average a few selected updates.

Most of the clients that they leave out are honest, so that acceptance and conviction differ: the
clients with a weight are accepted, and the suspects of `combining.py` are convicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tffl.defenses.combining import Combined, Combining

__all__ = ["Combined", "Selection"]


@dataclass(frozen=True)
class Selection(Combining):
    """Combines the updates that it selects, and accepts those alone.

    >>> @dataclass(frozen=True)
    ... class First(Selection):
    ...     def combine(self, updates, server, state):
    ...         weights = (np.arange(len(updates)) == 0).astype(float)
    ...         return Combined(updates.row(0), weights, 1 - weights), state
    >>> First().judge_rows(np.eye(3)).accepted.tolist()
    [True, False, False]
    """

    def kept(self, weights: np.ndarray) -> np.ndarray:
        """Keeps the rows that have a weight."""
        return weights > 0

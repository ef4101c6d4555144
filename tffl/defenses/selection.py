"""Defenses that average a few chosen updates.

Most of the clients that they leave out are honest. What they believe of them is another question,
so acceptance and conviction differ: accepted are those with a weight, convicted the suspects of
`combining.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tffl.core.verdict import Verdict
from tffl.defenses.combining import NOT_SELECTED, Combined, Combining

__all__ = ["Combined", "Selection", "only_selected"]


@dataclass(frozen=True)
class Selection(Combining):
    """Combines the updates that it selects, and accepts those alone."""

    def kept(self, weights: np.ndarray) -> np.ndarray:
        """Keeps the rows that have a weight."""
        return weights > 0


def only_selected(verdict: Verdict) -> Verdict:
    """Returns the verdict of a detector that accepts only those that have a weight."""
    accepted = verdict.weights > 0
    reasons = zip(verdict.reasons, accepted, strict=True)
    return replace(
        verdict,
        accepted=accepted,
        reasons=tuple(reason or ("" if kept else NOT_SELECTED) for reason, kept in reasons),
    )

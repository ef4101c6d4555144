"""Trimmed mean: in every coordinate, drop the extremes and average the rest.

    Δ_j = mean of {Δ_ij} without its b largest and b smallest values

Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates
    Dong Yin, Yudong Chen, Kannan Ramchandran, Peter Bartlett. ICML 2018. Definition 2.

The paper trims a share β ≥ f/n on each side. tffl trims b = f if f is given, and otherwise a fifth
of the clients, but at least one; a fifth is Flower's default. The mean is
unweighted by definition. The paper trims gradients; here it is a round's updates, BatchNorm
statistics included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.parts.order import trimmed
from tffl.defenses.parts.tolerance import assumed_count, check_tolerance, remaining_count
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


def trim_count(malicious: int | float | None, n: int) -> int:
    """Returns b, how many of n values to drop at either end.

    Args:
      malicious: A count or a fraction of n; None stands for a fifth of n, rounded down, at least 1.
      n: Rows to average, at least 1. b is at most what leaves a value, n > 2b, also where rows
        that are not finite were removed.

    >>> trim_count(None, 10), trim_count(3, 10), trim_count(0.25, 10), trim_count(3, 5)
    (2, 3, 3, 2)
    """
    assumed = assumed_count(malicious, n, max(1, n // 5))
    return remaining_count(assumed, removed=0, most=(n - 1) // 2)


@dataclass(frozen=True)
class TrimmedMean(RobustMean):
    """Averages each coordinate without its f largest and f smallest values.

    A client's score is the share of trainable coordinates in which its value was dropped, from 0 to
    1. Rows with NaN or infinity are removed before, and b is not lowered for them: dropping a few
    more honest values is the safer error.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> TrimmedMean(malicious=1).judge_rows(rows).aggregate
    array([1.1], dtype=float32)
    """

    reference: ClassVar[str] = (
        "Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, "
        "ICML 2018"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if f is too large, or if there is nothing to trim."""
        most = (participants - 1) // 2
        check_tolerance("trimmed-mean", self.malicious, participants, most, "n > 2f")
        require(
            self.malicious is not None or participants >= 3,
            f"trimmed-mean needs at least 3 participants a round, not {participants}: of fewer it "
            "can drop none; set defense.malicious=0 for a plain mean",
        )

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Trims every column, non-trainable ones too."""
        n = len(updates)
        aggregate, shares = trimmed(updates, trim_count(self.malicious, n))
        return Combined(aggregate, np.full(n, 1 / n), shares), state

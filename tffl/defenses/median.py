"""Coordinate-wise median: in every coordinate, the middle value.

    Δ_j = median of {Δ_ij}

Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates
    Dong Yin, Yudong Chen, Kannan Ramchandran, Peter Bartlett. ICML 2018. Definition 1.

The median of an even number of values is the mean of the middle two, as in NumPy and Flower;
PyTorch takes the lower one. It is the trimmed mean with the largest b. The paper takes medians of
gradients; here it is a round's updates, BatchNorm statistics included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.parts.order import trimmed
from tffl.defenses.parts.tolerance import check_tolerance
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


@dataclass(frozen=True)
class Median(RobustMean):
    """Takes the median of each coordinate, whatever the sample counts.

    A client's score is the share of trainable coordinates in which its value is not one of the
    middle one or two; where equal values leave open which these are, it counts by its chance. Hence
    honest clients score near 1 − 1/n, and only the comparison among clients means something.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> Median().judge_rows(rows).aggregate
    array([1.1], dtype=float32)
    """

    reference: ClassVar[str] = (
        "Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, "
        "ICML 2018"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f."""
        most = (participants - 1) // 2
        check_tolerance("median", self.malicious, participants, most, "n > 2f")

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Takes the median of every column, non-trainable ones too."""
        n = len(updates)
        aggregate, shares = trimmed(updates, count=(n - 1) // 2)
        return Combined(aggregate, np.full(n, 1 / n), shares), state

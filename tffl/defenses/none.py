"""FedAvg: no defense.

    Δ = Σ n_i Δ_i / Σ n_i

Communication-Efficient Learning of Deep Networks from Decentralized Data
    Brendan McMahan, Eider Moore, Daniel Ramage, Seth Hampson, Blaise Agüera y Arcas. AISTATS 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.server import Server


@dataclass(frozen=True)
class FedAvg(Defense):
    """Averages all updates by their sample counts; judges nobody, not even NaN.

    >>> rows = np.array([[0.0], [4.0]])
    >>> FedAvg().judge_rows(rows, counts=np.array([1, 3])).aggregate
    array([3.], dtype=float32)
    """

    reference: ClassVar[str] = (
        "McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized "
        "Data, AISTATS 2017"
    )

    @property
    def convicts(self) -> bool:
        """Never."""
        return False

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Accepts every client, or every finite row in `FiniteAvg`."""
        counted = self._counted(updates)
        weights = sample_shares(updates, counted)
        verdict = Verdict(
            flagged=~counted,
            convicted=~counted,
            accepted=counted,
            weights=weights,
            scores=np.where(counted, math.nan, math.inf),
            threshold=math.nan,
            aggregate=updates.mean(weights),
            reasons=tuple("" if one else NOT_FINITE for one in counted),
        )
        return verdict, state

    def _counted(self, updates: Updates) -> np.ndarray:
        return np.ones(len(updates), dtype=bool)


class FiniteAvg(FedAvg):
    """Averages as FedAvg does, but for rows with NaN or infinity; stands behind other rules."""

    def _counted(self, updates: Updates) -> np.ndarray:
        return updates.finite()

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

from tffl.defenses.base import Defense, Server, State, Verdict, sample_shares
from tffl.federated.updates import Updates


@dataclass(frozen=True)
class FedAvg(Defense):
    """Averages all updates by their sample counts; judges nobody, not even NaN."""

    reference: ClassVar[str] = (
        "McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized "
        "Data, AISTATS 2017"
    )

    @property
    def convicts(self) -> bool:
        """Never."""
        return False

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Accepts everybody."""
        n = len(updates)
        everybody = np.ones(n, dtype=bool)
        weights = sample_shares(updates, everybody)
        verdict = Verdict(
            flagged=~everybody,
            convicted=~everybody,
            accepted=everybody,
            weights=weights,
            scores=np.full(n, math.nan),
            threshold=math.nan,
            aggregate=updates.mean(weights),
            reasons=("",) * n,
        )
        return verdict, state


class FiniteAvg(FedAvg):
    """Averages as FedAvg does, but for rows with NaN or infinity; stands behind other rules."""

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Accepts everybody whose update is finite."""
        finite = updates.finite()
        weights = sample_shares(updates, finite)
        verdict = Verdict(
            flagged=~finite,
            convicted=~finite,
            accepted=finite,
            weights=weights,
            scores=np.where(finite, math.nan, math.inf),
            threshold=math.nan,
            aggregate=updates.mean(weights),
            reasons=tuple("" if row else "the update holds NaN or infinity" for row in finite),
        )
        return verdict, state

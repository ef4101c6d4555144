"""Centered clipping: no update moves the aggregate further than τ from where it was last round.

    v ← v + (1/n) Σ (Δ_i − v)·min(1, τ / ‖Δ_i − v‖)        L times; v stays for the next round

Learning from History for Byzantine Robust Optimization
    Sai Praneeth Karimireddy, Lie He, Martin Jaggi. ICML 2021.

v starts as the last round's aggregate, as in the paper and in the authors' code, and as 0 in round
1; some implementations start from a client instead. The mean is unweighted by definition. In the
paper clients send momenta; here they send updates, whose scale depends on model and learning rate.
So τ, for which values from 5 to 100 are in use, is the median distance to v if none is given.

Distances are those of the trainable columns, and only these are clipped. BatchNorm statistics are
averaged as they are, with equal weights: a mix of this round's and an old mean belongs to no data,
and could make a moving variance negative. Nothing here stops a client from sending bad ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.geometry import squared_distances_to
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State
from tffl.defenses.parts.clipping import clip_factors, excess
from tffl.defenses.parts.scaling import scaled_mean
from tffl.defenses.parts.tolerance import check_tolerance
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


@dataclass(frozen=True)
class CenteredClipping(RobustMean):
    """Clips each update's distance to the last aggregate and averages what remains.

    A client's score is its distance to the v of the last pass over τ: above 1 it was clipped.

    Attributes:
      tau: τ > 0; the median distance to v, computed in every pass, if None.
      iterations: L >= 1, passes per round; the paper advises 1.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> CenteredClipping(tau=1.0).judge_rows(rows).aggregate
    array([0.98], dtype=float32)
    """

    tau: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    iterations: Annotated[int, Field(ge=1)] = 1

    reference: ClassVar[str] = (
        "Karimireddy et al., Learning from History for Byzantine Robust Optimization, ICML 2021"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f."""
        most = (participants - 1) // 2
        check_tolerance("centered-clipping", self.malicious, participants, most, "n > 2f")

    def init(self, server: Server) -> State:
        """Starts from no change at all."""
        return {"center": np.zeros(server.layout.size, dtype=np.float32)}

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Moves the center, and remembers where it is."""
        n, trainable = len(updates), updates.layout.trainable
        center, shares = state["center"], np.full(n, 1 / n)
        for _ in range(self.iterations):
            distances = np.sqrt(squared_distances_to(updates, center))
            limit = float(np.median(distances)) if self.tau is None else self.tau
            factors = clip_factors(distances, limit)
            # v + mean of (Δ_i − v)·factor_i, with v taken out; it is 0 where nothing is clipped.
            aggregate = scaled_mean(updates, shares, factors) + (1 - factors.mean()) * center
            aggregate = aggregate.astype(np.float32)
            center = np.where(trainable, aggregate, np.float32(0))
        combined = Combined(aggregate, shares, excess(distances, limit))
        return combined, {"center": center}

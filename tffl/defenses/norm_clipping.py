"""Norm clipping: no update counts with more than a maximum norm, and noise may cover the rest.

    Δ = Σ (n_i / N)·Δ_i / max(1, ‖Δ_i‖ / M)  +  N(0, σ²)

Can You Really Backdoor Federated Learning?
    Ziteng Sun, Peter Kairouz, Ananda Theertha Suresh, H. Brendan McMahan. 2019. arXiv 1911.07963.

The paper's M is a constant that depends on model and data. Without it, tffl takes the median norm
of the round, as later rules do: half of the updates are clipped then, honest ones among them. The
mean is FedAvg's, by claimed sample counts: clipping bounds an update's length, not what a client
claims.

Norms are those of the trainable columns, and only these are shortened and get noise. BatchNorm
statistics are averaged as they are: they are not trained, and noise, or one client's stretched
mean, could make a moving variance negative. Nothing here stops a client from sending bad ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State, sample_shares
from tffl.defenses.parts.clipping import clip_factors, excess
from tffl.defenses.parts.noise import add_noise
from tffl.defenses.parts.scaling import scaled_mean
from tffl.defenses.parts.tolerance import check_tolerance
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


@dataclass(frozen=True)
class NormClipping(RobustMean):
    """Shortens updates to a maximum norm and averages them by their sample counts.

    A client's score is its norm divided by M: above 1 it was clipped. Its weight on record is
    FedAvg's, which clipping does not change.

    Attributes:
      max_norm: M > 0; the median norm of the round if None.
      noise: σ >= 0 of the Gaussian noise on every trainable weight of the result, weak differential
        privacy. No privacy guarantee is claimed for it.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> NormClipping(max_norm=1.0).judge_rows(rows).aggregate.round(3)
    array([0.98], dtype=float32)
    """

    max_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    reference: ClassVar[str] = (
        "Sun et al., Can You Really Backdoor Federated Learning?, arXiv 1911.07963, 2019"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` unless n > 2f."""
        most = (participants - 1) // 2
        check_tolerance("norm-clipping", self.malicious, participants, most, "n > 2f")

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Clips, averages and adds noise."""
        norms = updates.norms(trainable=True)
        limit = float(np.median(norms)) if self.max_norm is None else self.max_norm
        weights = sample_shares(updates, np.ones(len(updates), dtype=bool))
        aggregate = scaled_mean(updates, weights, clip_factors(norms, limit))
        add_noise(aggregate, self.noise, updates, server, "norm-clipping")
        return Combined(aggregate, weights, excess(norms, limit)), state

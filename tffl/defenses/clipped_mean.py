"""Clipped mean: FedAvg's mean, of updates that are no longer than a bound.

    M = a constant, or the q-quantile of the norms ‖Δ_j‖ of the round; the median with q = ½
    Δ = Σ (n_i / N)·Δ_i·min(1, M / ‖Δ_i‖)

Operators of servers with sites of very different size ask for this rule: medians, trimmed means and
Krum count a site of 100 samples like one of 10,000, while here each keeps its share n_i / N. It has
no paper of its own; clipping against poisoned updates is from

Can You Really Backdoor Federated Learning?
    Ziteng Sun, Peter Kairouz, Ananda Theertha Suresh, H. Brendan McMahan. 2019. arXiv 1911.07963.

Without options it computes the same as `norm-clipping`, which keeps sample counts too. It differs
in `quantile`: the median clips half of the updates, honest ones among them, and a higher quantile
fewer, at the price of tolerating fewer attackers. It adds no noise.

It bounds how far a client can move the model by M times its share. It does not bound the share:
whoever claims many samples has much weight. A vector of norm M may still do harm.

Norms are those of the trainable columns, and only these are shortened; BatchNorm statistics are
averaged as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import State, sample_shares
from tffl.defenses.parts.clipping import clip_factors, excess
from tffl.defenses.parts.scaling import scaled_mean
from tffl.defenses.parts.tolerance import check_tolerance
from tffl.defenses.robust_mean import Combined, RobustMean
from tffl.defenses.server import Server


def tolerated(quantile: float, participants: int) -> int:
    """Returns the largest f for which f endlessly long updates cannot move the bound out of reach.

    The q-quantile interpolates between the two order statistics around place q·(n − 1), of which
    the higher one has to be at most the norm of an honest client.

    >>> tolerated(0.5, 10), tolerated(0.75, 9), tolerated(1.0, 10)
    (4, 2, 0)
    """
    return participants - 1 - math.ceil(quantile * (participants - 1) - 1e-9)


@dataclass(frozen=True)
class ClippedMean(RobustMean):
    """Shortens updates to a bound and averages them by their sample counts.

    A client's score is its norm divided by the bound: above 1 it was clipped. Its weight on record
    is FedAvg's, which clipping does not change.

    Attributes:
      max_norm: M > 0; a quantile of the round's norms if None.
      quantile: q from 0.5 to 1. With n clients, n − 1 − ⌈q·(n − 1)⌉ attackers are tolerated.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> ClippedMean().judge_rows(rows, counts=np.array([1, 1, 1, 1, 6])).aggregate.round(3)
    array([1.07], dtype=float32)
    """

    max_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    quantile: Annotated[float, Field(ge=0.5, le=1)] = 0.5

    reference: ClassVar[str] = (
        "clipping as in Sun et al., Can You Really Backdoor Federated Learning?, "
        "arXiv 1911.07963, 2019"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for more attackers than the bound tolerates, or two bounds."""
        require(
            self.max_norm is None or self.quantile == 0.5,
            "defense.max_norm and defense.quantile are two bounds: set one of them",
        )
        most = tolerated(0.5 if self.max_norm else self.quantile, participants)
        check_tolerance("clipped-mean", self.malicious, participants, most, "f < n − ⌈q·(n − 1)⌉")

    def combine(self, updates: Updates, server: Server, state: State) -> tuple[Combined, State]:
        """Clips and averages."""
        norms = updates.norms(trainable=True)
        limit = self.max_norm or float(np.quantile(norms, self.quantile))
        weights = sample_shares(updates, np.ones(len(updates), dtype=bool))
        aggregate = scaled_mean(updates, weights, clip_factors(norms, limit))
        return Combined(aggregate, weights, excess(norms, limit)), state

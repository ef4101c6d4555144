"""FLTrust: the server trains on samples of its own, and trusts what points the same way.

    trust_i = max(cos(Δ_i, Δ_0), 0)
    Δ = Σ trust_i · (‖Δ_0‖ / ‖Δ_i‖) · Δ_i  /  Σ trust_i

with Δ_0 the update that the server gets from its root data.

FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping
    Xiaoyu Cao, Minghong Fang, Jia Liu, Neil Zhenqiang Gong. NDSS 2021.

Sample counts do not matter. If nobody is trusted, the model stays as it is; some implementations
fall back to the plain mean, which is what an attacker would want.

The paper has no BatchNorm. Directions and norms are those of the trainable columns; statistics are
averaged with the same trust, but not rescaled: no gradient trains them, and stretching the
difference of a moving variance could make it negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.errors import UsageError
from tffl.core.geometry import cosines_with, norm
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.data.samples import ROOT_DATA
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.scaling import scaled_mean
from tffl.defenses.server import Server

ZERO = 1e-12
"""A smaller cosine is rounding, and counts as 0."""


@dataclass(frozen=True)
class FLTrust(Defense):
    """Weighs updates by their cosine to the server's own, and gives all of them its length.

    A client's score is minus its cosine. Flagged are those without trust: a cosine of at most 0,
    and NaN or infinity. If the server's own update is zero or not finite, there is nothing to
    compare with: nobody is trusted in that round, and the model stays as it is.

    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> FLTrust().judge_rows(rows, root_update=np.array([2.0, 1.0])).accepted.tolist()
    [True, True, True, True, False]
    >>> FLTrust().judge_rows(rows)
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: FLTrust compares with the server's own update: give root_update=
    """

    reference: ClassVar[str] = (
        "Cao et al., FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, "
        "NDSS 2021"
    )
    needs: ClassVar[tuple[str, ...]] = (ROOT_DATA,)

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Trains on the root data, and weighs the clients by it."""
        if server.root is None:
            raise UsageError("fltrust needs samples of the server's own")
        root = server.root.train(updates.start, updates.round)
        length, finite = norm(root, updates), updates.finite()
        usable = 0 < length < math.inf
        kept = updates.select(finite)
        norms = np.full(len(updates), np.inf)
        scores = norms.copy()
        cosines, norms[finite] = cosines_with(kept, root if usable else np.zeros_like(root))
        scores[finite] = 0 - cosines
        trusted = scores <= -ZERO
        trust = np.where(trusted, -scores, 0)
        weights = trust / trust.sum() if trusted.any() else trust
        factors = np.divide(length, norms, out=np.zeros_like(norms), where=trusted)
        verdict = Verdict(
            flagged=~trusted,
            convicted=~trusted,
            accepted=trusted,
            weights=weights,
            scores=scores,
            threshold=-ZERO,
            aggregate=scaled_mean(updates, weights, factors),
            reasons=tuple(_reason(score, usable) for score in scores.tolist()),
        )
        return verdict, state


def _reason(score: float, usable: bool) -> str:
    if math.isinf(score):
        return NOT_FINITE
    if not usable:
        return "the server's own update is zero or not finite: nothing to compare with"
    return f"cosine to the server's own update is {-score:.4g}" if score > -ZERO else ""

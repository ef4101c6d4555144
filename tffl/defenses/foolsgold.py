"""FoolsGold: clients whose updates have always pointed the same way are one attacker's sybils.

    H_i = Σ_t Δ_i^t                  over the rounds in which client i took part, this one included
    v_i = max_j cos(H_i, H_j)
    s_i = max_j cos(H_i, H_j) · min(1, v_i / v_j),  at least 0        pardons similar honest ones
    α_i = clip(κ·(ln(a_i / (1 − a_i)) + ½), 0, 1),  a_i = (1 − s_i) / max_j (1 − s_j)
    Δ   = Σ α_i Δ_i / Σ α_i

The Limitations of Federated Learning in Sybil Settings
    Clement Fung, Chris J. M. Yoon, Ivan Beschastnikh. RAID 2020.

The authors' code does not divide by Σ α_i, so that its step grows with the number of clients; tffl
does, since updates are weight differences and not gradients with a learning rate of their own.
Their weighting of features by importance is left out. Where all histories agree to within
rounding, where their code divides 0 by 0, every weight is 0 here. Two honest clients with similar
data resemble sybils too: the rule expects clients that differ, and does not find a lone attacker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core.errors import require
from tffl.core.geometry import cosines, products
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import TOLERANCE
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.scope import Layers, within
from tffl.defenses.server import Server

MOST_BYTES = 1 << 30
"""Largest memory of histories: it is copied in every round and is part of every checkpoint."""


def similarity(cosine: np.ndarray) -> np.ndarray:
    """Returns s_i, how much each history resembles its nearest after pardoning, float64 `[n]`.

    Args:
      cosine: float64 `[n, n]`, between histories; its diagonal does not count.

    >>> similarity(np.array([[1.0, 0.8, 0.4], [0.8, 1.0, 0.0], [0.4, 0.0, 1.0]]))
    array([0.8, 0.8, 0.2])
    """
    others = cosine.copy()
    np.fill_diagonal(others, 0)
    nearest = others.max(axis=1, initial=0)
    ratio = np.divide(
        nearest[:, None],
        nearest[None, :],
        out=np.ones_like(others),
        where=nearest[:, None] < nearest[None, :],
    )
    return np.clip((others * ratio).max(axis=1, initial=0), 0, 1)


def trust(similarity: np.ndarray, confidence: float = 1.0) -> np.ndarray:
    """Returns α_i in 0 … 1, float64 `[n]`; all 0 if everybody is like another.

    Args:
      similarity: s_i, float64 `[n]`, in 0 … 1.
      confidence: κ > 0.

    >>> trust(np.array([0.5, 0.7, 0.9])).round(4)
    array([1.    , 0.9055, 0.    ])
    """
    distinct = 1 - similarity
    most = distinct.max(initial=0)
    if most <= TOLERANCE:
        return np.zeros_like(distinct)
    relative = distinct / most
    with np.errstate(divide="ignore"):
        logit = np.log(relative) - np.log1p(-relative)
    return np.clip(confidence * (logit + 0.5), 0, 1)


@dataclass(frozen=True)
class FoolsGold(Defense):
    """Takes weight from clients whose updates, summed over all rounds, resemble another's.

    The score is s_i; flagged and left out are those whose weight is 0. The rule ignores sample
    counts. A row with NaN or infinity is rejected, and no part of its client's history.

    Attributes:
      layers: What histories are made of: the `final` layer, which the paper calls indicative of
        what an attack wants, and which fits into memory, or `all` of them: 8 · clients · d bytes,
        1 GiB at most.
      confidence: κ > 0, how steeply weights fall from 1 to 0; the paper's is 1.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    >>> FoolsGold(layers="all").judge_rows(rows).accepted.tolist()
    [True, True, False, False]
    """

    layers: Layers = "final"
    confidence: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Fung, Yoon, Beschastnikh, The Limitations of Federated Learning in Sybil Settings, "
        "RAID 2020"
    )

    @property
    def tracks_clients(self) -> bool:
        """True: it remembers histories."""
        return True

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for a single client, or if histories need too much memory."""
        require(
            participants >= 2,
            f"foolsgold compares clients and needs at least 2 a round, not {participants}",
        )
        self._check_size(participants, layout)

    def init(self, server: Server) -> State:
        """Returns histories of zero, float64 since clients may send numbers near float32's end."""
        self._check_size(server.clients, server.layout)
        return {"history": np.zeros((server.clients, self._width(server.layout)))}

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Adds the round to the histories, and weights its clients by how distinct theirs are."""
        finite = updates.finite()
        kept = within(updates.select(finite), self.layers)
        history = state["history"].copy()
        for columns in kept.columns(trainable=True):
            history[kept.client_ids, columns] += kept.block(columns)
        past = replace(kept, matrix=history, rows=kept.client_ids, mixing=None, overrides={})

        scores, weights = np.full(len(updates), np.inf), np.zeros(len(updates))
        scores[finite] = similarity(cosines(products(past)))
        weights[finite] = trust(scores[finite], self.confidence)
        accepted = weights > 0
        weights /= weights.sum() or 1
        reasons = map(_reason, finite, accepted, scores)
        threshold, mean = self._threshold(scores[finite]), updates.mean(weights)
        verdict = Verdict.dividing(accepted, scores, weights, mean, reasons, threshold)
        return verdict, {"history": history}

    def _threshold(self, scores: np.ndarray) -> float:
        """Returns the score from which on a client has no weight: there a_i = 1 / (1 + √e)."""
        if len(scores) == 0:
            return math.nan
        return float(1 - (1 - scores.min()) / (1 + math.exp(0.5)))

    def _width(self, layout: WeightLayout) -> int:
        if self.layers == "all":
            return layout.size
        return sum(entry.size for entry in layout.entries if entry.layer == layout.final_layer)

    def _check_size(self, clients: int, layout: WeightLayout) -> None:
        size = 8 * clients * self._width(layout)
        require(
            size <= MOST_BYTES,
            f"foolsgold would remember {size / 2**30:.1f} GiB of {clients} clients' updates, more "
            f"than {MOST_BYTES / 2**30:g} GiB: use defense.layers=final, or a smaller model",
        )


def _reason(finite: bool, accepted: bool, score: float) -> str:
    if not finite:
        return NOT_FINITE
    return "" if accepted else f"its history resembles another client's by {score:.4g}"

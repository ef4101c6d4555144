"""FLDetector: clients whose updates their own past does not predict.

    g_i = −Δ_i                                                what client i sends, as a gradient
    ĝ_i^t = g_i^{t−1} + Ĥ^t (w^t − w^{t−1})                   what its last one predicts
    d_i^t = ‖ĝ_i^t − g_i^t‖ / mean_j ‖ĝ_j^t − g_j^t‖
    score_i = mean of d_i over its last N rounds
    if the scores form more than one cluster: 2-means, the cluster of higher mean is malicious

Ĥ·v is by L-BFGS (`parts.lbfgs`) of the last N pairs s = w^{t+1} − w^t, y = ḡ^{t+1} − ḡ^t, where ḡ
is the average's; the clusters are counted by the gap statistic (`parts.clusters`).

FLDetector: Defending Federated Learning Against Model Poisoning Attacks via Detecting Malicious
Clients
    Zaixi Zhang, Xiaoyu Cao, Jinyuan Jia, Neil Zhenqiang Gong. KDD 2022.

Deviations. The sign: updates are steps downhill, and without the minus every curvature is negative.
Distances are divided by their mean, the paper's by their sum: equal when all take part, and fair
to rounds that have more clients than others. 2-means is exact here and starts at random there.
Without a pair of positive curvature Ĥ = 0, and the last update is the prediction. A client that was
away has its last update carried on by every Ĥ(w^t − w^{t−1}) since. The authors detect from round
50 on, in full-batch training with a tiny learning rate, where updates change little from round to
round; the more local epochs and the fewer samples, the less a past predicts.
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
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State, sample_shares
from tffl.defenses.parts.lbfgs import hessian_product
from tffl.defenses.parts.thresholds import Gap
from tffl.defenses.server import Server

MOST_BYTES = 2 << 30
"""Largest memory: it is copied in every round and is part of every checkpoint."""


@dataclass(frozen=True)
class FLDetector(Defense):
    """Convicts clients whose updates do not follow from their own last ones.

    A convict stays excluded. Scores and curvature then start again, since both were measured with
    its updates in the average, and the search among the others goes on when `start` more rounds
    have passed. Scores begin with a client's second round; a newcomer's is the median of the
    others, and it is not judged. Where all are newcomers, as in round 1 and after a restart, scores
    are NaN. A row with NaN or infinity is rejected in its round only, and not remembered.

    Even without attackers, scores may seem to fall into two clusters, and then honest clients are
    lost for good: of independent, normally distributed scores, 5 % of rounds with 10 clients
    convict (about 4 of them), 2 % with 20, and none of 400 with 50 (simulated).

    It remembers 4 · (clients + 2 · window + 4) · d bytes, 2 GiB at most.

    Attributes:
      window: N, how many scores a client is judged by, and how many pairs L-BFGS uses.
      start: The first round that may convict, counted from round 1 or the last conviction. The
        paper's code waits for round 50; before round 3 there is no curvature, and a mean over few
        rounds is noisy.
      restart: After the first conviction, go back to the weights of round 1, to within rounding,
        as the paper does: what attackers did until then is undone, and so is all other learning.

    >>> rows = np.array([[1.0], [1.1], [0.9], [1.2], [9.0]])
    >>> FLDetector().judge_rows(rows).scores  # of a first round
    array([nan, nan, nan, nan, nan])
    """

    window: Annotated[int, Field(ge=1)] = 10
    start: Annotated[int, Field(ge=2)] = 5
    restart: bool = False

    reference: ClassVar[str] = (
        "Zhang et al., FLDetector: Defending Federated Learning Against Model Poisoning Attacks "
        "via Detecting Malicious Clients, KDD 2022"
    )

    @property
    def tracks_clients(self) -> bool:
        """True: it remembers updates, prediction errors and convictions."""
        return True

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for too few clients to cluster, or too many to remember."""
        require(
            participants >= 3,
            f"fldetector clusters scores and needs at least 3 participants a round, not "
            f"{participants}",
        )
        self._check_size(participants, layout)

    def init(self, server: Server) -> State:
        """Returns an empty memory."""
        self._check_size(server.clients, server.layout)
        clients, d = server.clients, server.layout.size
        return {
            "rounds": np.zeros(1, dtype=np.int64),
            "convicted": np.zeros(clients, dtype=bool),
            "known": np.zeros(clients, dtype=bool),
            "expected": np.zeros((clients, d), dtype=np.float32),
            "distances": np.full((clients, self.window), np.nan),
            "steps": np.zeros((self.window, d), dtype=np.float32),
            "turns": np.zeros((self.window, d), dtype=np.float32),
            "first": np.zeros(d, dtype=np.float32),
            "start": np.zeros(d, dtype=np.float32),
            "average": np.zeros(d, dtype=np.float32),
        }

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Compares with what was expected, clusters, convicts, and averages the others."""
        finite, ids = updates.finite(), updates.client_ids
        rounds = int(state["rounds"][0]) + 1
        expected, distances = self._observe(updates.select(finite), state)
        measured = finite & state["known"][ids]
        scores = _scores(distances[ids], finite, measured)

        threshold = math.nan
        if rounds >= self.start:
            suspects = scores[measured & ~state["convicted"][ids]]
            threshold = Gap(server.seed, "fldetector", updates.round)(suspects)
        flagged = ~finite | (measured & (scores > threshold))
        convicted = state["convicted"].copy()
        convicted[ids[finite & flagged]] = True
        accepted = finite & ~convicted[ids]
        weights = sample_shares(updates, accepted)
        aggregate = updates.mean(weights)

        memory = {
            **state,
            **self._pairs(updates, state, aggregate if accepted.any() else None),
            "rounds": np.array([rounds]),
            "convicted": convicted,
            "known": _marked(state["known"], ids[finite]),
            "expected": expected,
            "distances": distances,
        }
        if not state["first"].any():
            memory["first"] = updates.start.copy()
        if convicted.sum() > state["convicted"].sum():
            fresh = self.init(server)
            if self.restart and not state["convicted"].any():
                # The average of this round comes too late: it is no part of the new start.
                weights = np.zeros(len(updates))
                step = memory["first"].astype(np.float64) - updates.start
                aggregate = (step / server.learning_rate).astype(np.float32)
                memory = {**fresh, "convicted": convicted, "first": memory["first"]}
            else:
                restarted = ("rounds", "distances", "steps", "turns")
                memory |= {key: fresh[key] for key in restarted}
        verdict = Verdict(
            flagged=flagged,
            convicted=~accepted,
            accepted=accepted,
            weights=weights,
            scores=scores,
            threshold=threshold,
            aggregate=aggregate,
            reasons=tuple(map(_reason, finite, flagged, accepted, scores)),
        )
        return verdict, memory

    def _observe(self, updates: Updates, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Measures finite updates against what was expected of their clients.

        Returns:
          What to expect next, float32 `[clients, d]`, and distances, float64 `[clients, window]`,
          latest first, NaN where a client has not had as many.
        """
        ids, blocks = updates.client_ids, list(updates.columns(trainable=True))
        change = np.zeros(len(updates.start))
        if state["known"].any():
            step = updates.start.astype(np.float64) - state["start"]
            change = -hessian_product(state["steps"], state["turns"], step, blocks)
        expected, squares = np.zeros_like(state["expected"]), np.zeros(len(updates))
        most = np.finfo(np.float32).max
        for columns in blocks:
            predicted = state["expected"][:, columns] + change[columns]
            sent = updates.block(columns)
            squares += np.square(predicted[ids] - sent).sum(axis=1)
            expected[:, columns] = np.clip(predicted, -most, most)
            expected[ids, columns] = sent

        known = state["known"][ids]
        errors, measured = np.sqrt(squares[known]), ids[known]
        mean = errors.mean() if known.any() else 0.0
        distances = state["distances"].copy()
        distances[measured, 1:] = state["distances"][measured, :-1]
        distances[measured, 0] = errors / mean if mean > 0 else 1.0
        return expected, distances

    def _pairs(self, updates: Updates, state: State, average: np.ndarray | None) -> State:
        """Returns what L-BFGS remembers after a round; no pair if nobody was accepted."""
        result = {"start": updates.start.copy()}
        if average is None:
            return result
        if state["average"].any():
            with np.errstate(over="ignore"):
                step, turn = updates.start - state["start"], state["average"] - average
            result["steps"] = np.concatenate([state["steps"][1:], step[None]])
            result["turns"] = np.concatenate([state["turns"][1:], turn[None]])
        return {**result, "average": average}

    def _check_size(self, clients: int, layout: WeightLayout) -> None:
        size = 4 * layout.size * (clients + 2 * self.window + 4)
        require(
            size <= MOST_BYTES,
            f"fldetector would remember {size / 2**30:.1f} GiB of {clients} clients' updates, more "
            f"than {MOST_BYTES / 2**30:g} GiB: take a smaller model, fewer clients or a smaller "
            "defense.window",
        )


def _scores(distances: np.ndarray, finite: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Returns the mean distance of each row; the median of these where there is none."""
    scores = np.full(len(distances), np.nan)
    scores[measured] = np.nanmean(distances[measured], axis=1)
    if measured.any():
        scores[~measured] = np.median(scores[measured])
    scores[~finite] = np.inf
    return scores


def _marked(flags: np.ndarray, positions: np.ndarray) -> np.ndarray:
    result = flags.copy()
    result[positions] = True
    return result


def _reason(finite: bool, flagged: bool, accepted: bool, score: float) -> str:
    if not finite:
        return NOT_FINITE
    if flagged:
        return f"does not follow from its last updates: {score:.4g} times the mean error"
    return "" if accepted else "convicted in an earlier round"

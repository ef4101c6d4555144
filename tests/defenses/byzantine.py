"""What tests of Krum and its relatives share: matrices as updates, and a slow reference."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Defense, Server, Verdict

FROZEN = 2
"""The first columns, which no gradient trains."""


def as_updates(rows: object, counts: object = None, ids: object = None, round: int = 1) -> Updates:
    """Puts rows `[n, d]` into the trainable columns, and their number into the frozen ones."""
    rows = np.asarray(rows, dtype=np.float32)
    n, d = rows.shape
    frozen = np.repeat(np.arange(n, dtype=np.float32)[:, None], FROZEN, axis=1)
    return Updates(
        round=round,
        client_ids=np.arange(n) if ids is None else np.asarray(ids),
        sample_counts=np.ones(n, np.int64) if counts is None else np.asarray(counts),
        start=np.zeros(FROZEN + d, np.float32),
        matrix=np.hstack([frozen, rows]),
        layout=WeightLayout(
            (Entry("bn/moving_mean", (FROZEN,), False), Entry("logits/bias", (d,), True))
        ),
    )


def judge(defense: Defense, updates: Updates, server: Server) -> Verdict:
    server = replace(server, clients=100)
    return defense.judge(updates, server, defense.init(server))[0]


def cloud(n: int, d: int, seed: int = 0, attackers: int = 0, far: float = 20) -> np.ndarray:
    """Returns honest rows around 0 and attackers far away, at the end."""
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows[n - attackers :] += far
    return rows.astype(np.float32)


def naive_scores(rows: np.ndarray, malicious: int, more: int = 0) -> list[float]:
    """Returns Krum's scores, in plain loops; with `more` neighbors than it counts."""
    scores = []
    for i, x in enumerate(rows):
        others = []
        for j, y in enumerate(rows):
            if i != j:
                others.append(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))
        others.sort()
        scores.append(math.fsum(others[: max(1, len(rows) - malicious - 2) + more]))
    return scores

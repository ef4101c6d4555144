"""A round that attackers play in advance, with the code and the memory of the detector they know.

See `tffl.attacks.adaptive_coalition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tffl.attacks.base import State
from tffl.core import geometry
from tffl.core.thresholds import NORMAL
from tffl.core.updates import Updates
from tffl.defenses.base import sample_shares
from tffl.defenses.coalition import Coalition
from tffl.defenses.server import Server
from tffl.explain.maps import Probes

TINY = float(np.finfo(np.float64).tiny)


def detector_of(defense: Mapping[str, Any]) -> Coalition:
    """Returns the detector of an experiment, with default options if it has another defense.

    Args:
      defense: All of its options, and tables of those of combined defenses.

    >>> detector_of({"coalition": Coalition(coherence=0.3).options()}).coherence
    0.3
    """
    tables = [defense, *(value for value in defense.values() if isinstance(value, Mapping))]
    names = set(Coalition().options())
    return Coalition(**next((table for table in tables if names == set(table)), {}))


def imagined(
    updates: Updates, malicious: np.ndarray, seen: Updates, clients: int
) -> tuple[Updates, np.ndarray]:
    """Returns the round as the attackers imagine it, and which of its rows are theirs, bool `[k]`.

    Args:
      updates: All of the round; of honest clients that are not seen, only the number is read.
      malicious: bool `[n]`, at least one is True.
      seen: What they treat as honest updates; their own if they see no others.
      clients: Number of registered clients; ids from it on are free for those that stand in.
    """
    others = np.count_nonzero(~malicious)
    own = updates.select(malicious)
    stand_in = bool(np.isin(seen.client_ids, own.client_ids).any())
    if len(seen) == others and not stand_in:
        return updates, malicious
    rows, ids = seen.deltas, seen.client_ids
    if stand_in:
        rows, ids = 2 * rows.mean(axis=0) - rows, ids + clients
    counts = np.maximum(np.rint(seen.sample_counts * (others / len(seen))), 1).astype(np.int64)
    ids = np.concatenate([ids, own.client_ids])
    order = np.argsort(ids)
    everyone = Updates.of_rows(
        np.concatenate([rows, own.deltas])[order],
        counts=np.concatenate([counts, own.sample_counts])[order],
        layout=updates.layout,
        ids=ids[order],
        start=updates.start,
        round=updates.round,
    )
    return everyone, np.isin(everyone.client_ids, own.client_ids)


@dataclass(frozen=True)
class Price:
    """What colluders cost, beyond the honest median and in units of σ.

    Attributes:
      level: τ, the mean of all.
      unevenness: How much more the last of them costs than this mean, and how much less the first,
        beside the differences that they have anyway.
    """

    level: float
    unevenness: float


@dataclass(frozen=True)
class Attempt:
    """What would happen if the colluders sent some rows.

    Attributes:
      rows: float32 `[m, d]`.
      hidden: Whether the detector convicts none of them, with a margin.
      damage: E of the joint model after the verdict.
      remembered: What the detector would remember.
    """

    rows: np.ndarray
    hidden: bool
    damage: float
    remembered: State


@dataclass(frozen=True)
class Rehearsal:
    """One round, which the attackers play in advance.

    Attributes:
      updates: As they imagine it, before the attack.
      colluders: bool `[n]`, which rows are theirs.
      detector: With the options of the experiment's.
      server: The server as they imagine it.
      state: What the detector remembers.
      probes: On which they estimate what they cost.
      images: On which they want the joint model to be wrong, `[k, …]`, in bytes.
      labels: int32 `[k]`.
    """

    updates: Updates
    colluders: np.ndarray
    detector: Coalition
    server: Server
    state: State
    probes: Probes
    images: np.ndarray
    labels: np.ndarray

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """Returns g, float64 `[d]`; zeros if the detector has no images."""
        if not self.detector.images or not len(self.probes):
            return np.zeros(len(weights))
        assert self.server.explainer is not None
        _, slope = self.server.explainer.loss(weights, self.probes)
        return slope.astype(np.float64)

    def priced(self, rows: np.ndarray, slope: np.ndarray, price: Price) -> np.ndarray:
        """Moves rows `[m, d]` of the colluders along g = `slope`, until they cost what they should.

        With `[1, d]` all of them send the same.
        """
        excess, spread = self.excess(rows, slope)
        amounts = np.full(len(rows), price.level * spread - excess.mean())
        rank = np.argsort(np.argsort(excess, kind="stable"), kind="stable")
        if len(rows) > 1:
            amounts += price.unevenness * spread * (2 * rank / (len(rows) - 1) - 1)
        amounts /= max(float(np.einsum("j,j->", slope, slope)), TINY)
        return (rows + amounts[:, None] * slope).astype(np.float32)

    def excess(self, rows: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns what each colluder costs beyond h̃, float64 `[m]`, and σ, with g = `slope`."""
        costs = geometry.products_with(self.updates.with_rows(self.colluders, rows), slope)
        honest = costs[~self.colluders]
        if len(honest) == 0:
            return np.zeros(len(costs)), 0.0
        middle = float(np.median(honest))
        spread = NORMAL * float(np.median(np.abs(honest - middle)))
        return costs[self.colluders] - middle, spread

    def certainties(self, weights: np.ndarray) -> np.ndarray:
        """Returns p(true class) of a model on the attackers' images, float64 `[k]`."""
        update = (weights - self.updates.start)[None]
        model = Updates.of_rows(update, layout=self.updates.layout, start=self.updates.start)
        assert self.server.explainer is not None
        probes = Probes(self.images, self.labels)
        logits = self.server.explainer.logits(model, probes)[0].astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers[np.arange(len(powers)), self.labels] / powers.sum(axis=1)

    def joint(self, updates: Updates, accepted: np.ndarray | None = None) -> np.ndarray:
        """Returns the joint model float32 `[d]` after some clients, or all, are averaged."""
        everyone = np.ones(len(updates), dtype=bool)
        mean = updates.mean(sample_shares(updates, everyone if accepted is None else accepted))
        return self.updates.start + np.float32(self.server.learning_rate) * mean

    def attempt(self, rows: np.ndarray, margin: float) -> Attempt:
        """Lets the detector judge the round with these rows of the colluders, `[m, d]`."""
        sent = self.updates.with_rows(self.colluders, rows)
        evidence = self.detector.examine(sent, self.server, self.state)
        accepted = ~(evidence.scores > self.detector.threshold(evidence.scores))
        hidden = bool(evidence.scores[self.colluders].max() <= margin)
        after = self.joint(sent, accepted) if accepted.any() else self.updates.start
        damage = 1 - float(self.certainties(after).mean())
        return Attempt(rows, hidden, damage, evidence.remembered)

"""Coalition: who pushes together, and what it costs the images of the server.

With Δ_i an update, m the clients' coordinate-wise median, w the global weights, ℓ_c the mean
cross-entropy on the server's images of class c, and an average that follows below:

    A_ij = cos(Δ_i − m, Δ_j − m)                            who pushes in the same direction
    h_ic = ∇ℓ_c(w + average) · Δ_i, less its median, in units of 1.4826 · MAD_i mean_c h_ic

Both are averaged over rounds, with forgetting. Groups are proposed from A alone, by its leading
eigenvectors and by average linkage, and convicted by h; see `tffl.defenses.parts.coalitions`. Whom
the most suspicious group leaves is searched again, until no group exceeds its limit. At most half
of the clients are ever convicted.

tffl's own. Why it finds attackers that tests of single clients do not:

- Attackers who add a common shift to their honest updates look like honest clients, one by one. To
  move the mean they have to push together, and deviations of honest clients in many dimensions are
  nearly orthogonal.
- Honest clients of uneven data are coherent, too, where they have the same classes, and some cost a
  little, since the average has too much of what they send. But then they improve what they have.
  Attackers lower no loss to speak of. So what a group costs counts as far as most classes share it.
- The gradient is taken after the average, to which all clients contribute, so that it points at
  those who have just done harm. It needs no majority. Once a group is convicted, what the others
  cost is measured again, after the average without it.

Choices:

- The average is that of the sample counts, with rows cut to 3 times the median length: a single
  absurd row must not carry the point away at which costs are measured. Statistics that no gradient
  trains, such as BatchNorm's, are the clients' medians there, for the same reason.
- The images' classes are dealt into at most 10 parts, each with a gradient of its own.
- If the gradient is not finite, costs of the round count as 0.
- `images = 0` leaves the images out. What is left is cohesion: clients who send nearly the same, or
  who do little else than push together. Attackers who hide a smaller shift in their own updates,
  and whoever acts alone, are then not found.

What harm is left to colluders whom it does not convict is bounded in `results/coalition/BOUND.md`;
`tffl.studies.coalition_bound` computes the bounds.

Two papers that look for colluders in the clients' graph:
FedCut: A Spectral Analysis Framework for Reliable Detection of Byzantine Colluders
    Hanlin Gu, Lixin Fan, Xingxing Tang, Qiang Yang. TPAMI 2024.
The Limitations of Federated Learning in Sybil Settings
    Clement Fung, Chris Yoon, Ivan Beschastnikh. RAID 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.core import geometry
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.thresholds import NORMAL
from tffl.core.updates import Updates
from tffl.core.verdict import CoalitionPlane
from tffl.data.samples import PROBE_DATA
from tffl.defenses.base import State, sample_shares
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.parts.coalitions import Coalitions, Search, coherence
from tffl.defenses.parts.order import middle
from tffl.defenses.parts.pair_history import PairHistory
from tffl.defenses.parts.thresholds import Fixed, Threshold
from tffl.defenses.server import Server
from tffl.explain.maps import Probes
from tffl.explain.probes import draw

LONGEST = 3.0
"""How many median lengths of a row count in the average at which costs are measured."""

PARTS = 10
"""Into how many parts the classes are dealt at most."""

CLIP = 40.0
"""How many robust standard deviations one client can cost one class in one round."""


@dataclass(frozen=True)
class Coalition(Detector):
    """Convicts groups of clients that push together and cost the server's images, and loners.

    The score of a convicted client is the excess of its group over the limit, above 1; that of
    another is how near the most suspicious group with it, or it alone, comes to the limit.

    Attributes:
      images: How many of the server's images to use, of all classes as evenly as possible; all of
        them if it has fewer; 0 for none.
      forgetting: λ; the weight of a round shrinks by it with each later one. 0 judges every round
        by itself.
      coherence: The least cohesion of a group that can be convicted for what it costs.
      relief: What the limits are multiplied by for the group of all who were convicted last time.

    >>> rows = np.eye(12, 40)
    >>> rows[:4, 20:] += 2.0
    >>> Coalition(images=0).judge_rows(rows).accepted.tolist()[:6]
    [False, False, False, False, True, True]
    """

    images: Annotated[int, Field(ge=0)] = 200
    forgetting: Annotated[float, Field(ge=0, lt=1)] = 0.9
    coherence: Annotated[float, Field(ge=0, le=1)] = 0.1
    relief: Annotated[float, Field(gt=0, le=1)] = 0.75

    score_name: ClassVar[str] = "excess of the most suspicious group, relative to its limit"
    reference: ClassVar[str] = "tffl's own"

    @property
    def uses_model(self) -> bool:
        """It needs the network to compute gradients."""
        return self.images > 0

    @property
    def tracks_clients(self) -> bool:
        """Whether it averages over rounds."""
        return self.forgetting > 0 or super().tracks_clients

    @property
    def needs_history(self) -> bool:
        """A first round is judged as any other; later ones only add to it."""
        return super().tracks_clients

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns probe data, unless it uses none."""
        return (*super().declared_knowledge(), *((PROBE_DATA,) if self.images else ()))

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` with fewer than 5 participants: among 4, a pair is half."""
        super().check(participants, layout)
        require(
            participants >= 5,
            f"coalition needs at least 5 participants a round, not {participants}: among fewer "
            "there are no groups to tell apart",
        )

    def init(self, server: Server) -> State:
        """Remembers no client."""
        empty = PairHistory.empty(max(len(self._probes(server)), 1))
        return {**super().init(server), **empty.state}

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the evidence of one round by itself."""
        return self.examine(updates, server, self.init(server)).scores

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Adds the round to the history, and searches it for groups of those who took part."""
        finite = updates.finite()
        history, scores = PairHistory.of_state(state), np.full(len(updates), np.inf)
        notes = np.full(len(updates), "", dtype=object)
        if finite.sum() < 4:
            scores[finite] = 0
            return Evidence(scores, tuple(notes), history.state)
        rows = updates.select(finite)
        ids = rows.client_ids
        affinity = geometry.cosines(geometry.products_from(rows, middle))
        history = history.with_pairs(ids, rows.round, affinity, self.forgetting)
        pairs, held = history.of(ids)
        costs = np.zeros((len(ids), history.values.shape[1]))

        def measure(left: np.ndarray) -> np.ndarray:
            costs[left] = standardized(self._costs(rows.select(left), server))
            return history.means(ids[left], costs[left], self.forgetting)

        found = Search(self.coherence, self.relief)(pairs, measure, held)
        scores[finite], notes[finite] = found.evidence, _notes(found, pairs, ids)
        history = history.with_values(ids, costs, self.forgetting)
        memory, shown = history.convicting(ids, found.members).state, _plane(found, pairs, finite)
        return Evidence(scores, tuple(notes), memory, (shown,))

    @property
    def threshold(self) -> Threshold:
        """Scores are relative to the limits."""
        return Fixed(1.0, unscored=True)

    def _costs(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns ∇ℓ_c · Δ_i for each part of the classes, float64 `[n, parts]`."""
        probes = self._probes(server)
        costs = np.zeros((len(updates), max(len(probes), 1)))
        if not probes:
            return costs
        assert server.explainer is not None
        point = joint_weights(updates, server.learning_rate)
        for part, images in enumerate(probes):
            _, gradient = server.explainer.loss(point, images)
            if not np.isfinite(gradient).all():
                return np.zeros_like(costs)
            costs[:, part] = geometry.products_with(updates, gradient)
        return costs

    def _probes(self, server: Server) -> list[Probes]:
        """Returns the images of each part of the classes."""
        if not self.images or server.samples is None:
            return []
        count = min(self.images, len(server.samples.labels))
        drawn = draw(server.samples, count, server.seed)
        known, position = np.unique(drawn.classes, return_inverse=True)
        parts = min(PARTS, len(known))
        inside = [position % parts == part for part in range(parts)]
        return [Probes(drawn.images[mine], drawn.classes[mine]) for mine in inside]


def joint_weights(updates: Updates, learning_rate: float) -> np.ndarray:
    """Returns the global weights after an average that no single row dominates, float32 `[d]`.

    Args:
      updates: Finite rows.
      learning_rate: The server's.
    """
    norms = updates.norms(trainable=True)
    cut = np.minimum(1, LONGEST * np.median(norms) / np.maximum(norms, np.finfo(float).tiny))
    mean = updates.mean(sample_shares(updates, np.ones(len(updates), dtype=bool)) * cut)
    frozen = np.flatnonzero(~updates.layout.trainable)
    if len(frozen):
        mean[frozen] = np.median(updates.block(frozen), axis=0)
    return (updates.start + np.float32(learning_rate) * mean).astype(np.float32)


def standardized(costs: np.ndarray) -> np.ndarray:
    """Returns costs float64 `[n, parts]` from their medians, in robust units of a client's mean.

    >>> standardized(np.array([[0.0], [1.0], [2.0], [3.0], [99.0]])).round(2).ravel()
    array([-1.35, -0.67,  0.  ,  0.67, 40.  ])
    """
    centered = costs - np.median(costs, axis=0)
    total = centered.mean(axis=1)
    spread = NORMAL * np.median(np.abs(total - np.median(total)))
    if spread == 0:
        return np.zeros_like(centered)
    return np.clip(centered / spread, -CLIP, CLIP)


def _plane(found: Coalitions, pairs: np.ndarray, judged: np.ndarray) -> CoalitionPlane:
    """Returns what a person may see of a search among the clients that were judged, bool `[n]`."""

    def among_all(values: np.ndarray, missing: float) -> np.ndarray:
        result = np.full(len(judged), missing, dtype=values.dtype)
        result[judged] = values
        return result

    return CoalitionPlane(
        coherence=among_all(coherence(pairs, found.suspects), np.nan),
        cost=among_all(found.costs, np.nan),
        groups=among_all(found.groups, -1),
        suspects=among_all(found.suspects, False),
        evidence=among_all(found.evidence, np.nan),
    )


def _notes(found: Coalitions, pairs: np.ndarray, ids: np.ndarray) -> list[str]:
    """Says of each convicted client whom it pushes with."""
    notes = []
    for row, group in enumerate(found.groups.tolist()):
        mates = np.flatnonzero((found.groups == group) & (np.arange(len(ids)) != row))
        evidence = f"{found.evidence[row]:.3g} times the limit"
        if group < 0:
            notes.append("")
        elif len(mates) == 0:
            notes.append(f"costs the server's images alone, {evidence}")
        else:
            named = ", ".join(map(str, ids[mates][:8].tolist()))
            more = f" and {len(mates) - 8} more" if len(mates) > 8 else ""
            cosine = pairs[row, mates].mean()
            notes.append(f"pushes with {named}{more} (mean cosine {cosine:.2f}), {evidence}")
    return notes

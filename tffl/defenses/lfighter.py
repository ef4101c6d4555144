"""LFighter: of two clusters of what clients do to two output neurons, keep the looser or larger.

    a, b   = the neurons k of the output layer with the largest Σ_i (‖ΔW_i,k‖ + |Δb_i,k|)
    C₁, C₂ = 2-means of the rows v_i = (ΔW_i,a, ΔW_i,b)
    s_c    = |C_c| / n · (1 − mean_{i ∈ C_c} min(0, min_{j ∈ C_c} cos(v_i, v_j)))
    Δ      = Σ_{i ∈ C} Δ_i / |C|,     C the cluster of higher s

With one or two output neurons, v_i is the whole kernel of the layer.

LFighter: Defending against the Label-Flipping Attack in Federated Learning
    Najeeb M. Jebreel, Josep Domingo-Ferrer, David Sánchez, Alberto Blanco-Justicia. Neural Networks
    170, 2024.

This is the authors' code (najeebjebreel/LFighter, `aggregation.py` at cc50fe6). Their earlier paper
(arXiv 2207.01982) describes the same with angles: a cluster's inverse density is the mean of its
members' largest angles. The code takes 1 − cos instead, and sets the cosine of a row with itself to
0, hence the min(0, …): a cluster without an angle above 90° has s = |C| / n. Where that is so of
both, as it often is of honest clients, the smaller one is rejected, and the density plays no part.
The earlier paper's other filter, for clients with a single class each, is not in that code.

Somebody is rejected in every round, attacked or not: two clusters there always are, unless all rows
are equal. A majority of attackers wins unless the honest rows are looser by more than they are
fewer, and a minority of attackers that scatters can win, too. One client of huge weights can choose
both neurons. In a trial on digits (cnn, 10 clients, 6 rounds, one seed) it left out 1 or 2 of 10
honest clients a round; of 3 that flipped labels it found half, and left out 19 % of the other 7.

Where tffl departs from the code:

- Theirs starts 2-means at random (seed 0), and the start often decides where clusters overlap; see
  `parts.two_clusters` for tffl's. Of equal s, theirs takes the cluster that is numbered first by
  chance, tffl that of the first client.
- A row of zeros counts as at a right angle to all, as any does to itself; there, its cosine with
  itself is −1.
- The output layer's bias may be missing. BatchNorm statistics are averaged over C like the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.geometry import centered_products, cosines, products
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.two_clusters import distances_to_means, two_clusters
from tffl.defenses.server import Server

DIGITS = 12
"""Cluster scores are rounded to so many, so that equal ones tie whatever their last bit says."""


def neuron_magnitudes(kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Returns how much all clients together change each output neuron, float64 `[neurons]`.

    Args:
      kernel: Its change by each client, `[n, inputs, neurons]`.
      bias: Its change by each client, `[n, neurons]`.

    >>> neuron_magnitudes(np.array([[[3.0, 0.0], [4.0, 1.0]]]), np.array([[-1.0, 1.0]]))
    array([6., 2.])
    """
    norms = np.sqrt(np.einsum("nik,nik->nk", kernel, kernel))
    return (norms + np.abs(bias)).sum(axis=0)


def cluster_score(cosine: np.ndarray, members: np.ndarray) -> float:
    """Returns a cluster's share of the rows times its inverse density; 0 for an empty one.

    Args:
      cosine: Between all rows, float64 `[n, n]`.
      members: bool `[n]`.

    >>> cosine = np.array([[1.0, -0.5, 0.2], [-0.5, 1.0, 0.0], [0.2, 0.0, 1.0]])
    >>> cluster_score(cosine, np.array([True, True, False]))
    1.0
    """
    if not members.any():
        return 0.0
    lowest = np.minimum(cosine[np.ix_(members, members)].min(axis=1), 0)
    return round(float(members.mean() * (1 - lowest.mean())), DIGITS)


@dataclass(frozen=True)
class LFighter(Defense):
    """Averages one of two clusters of what clients change at two output neurons.

    Flagged and rejected are the clients of the other cluster. The score is the distance to the kept
    cluster's center, as a share of the distances to both: it ranks clients, and there is no
    threshold. Weights are equal shares, whatever sample counts claim. Rows with NaN or infinity are
    rejected and no part of n.

    >>> from tffl.core.layout import Entry
    >>> layout = WeightLayout((Entry("logits/kernel", (1, 2), True),))
    >>> rows = np.array([[1.0, 2.0], [1.1, 1.9], [0.9, 2.1], [1.2, 2.0], [-9.0, 9.0]])
    >>> LFighter().judge_rows(rows, layout=layout).accepted.tolist()
    [True, True, True, True, False]
    """

    reference: ClassVar[str] = (
        "Jebreel et al., LFighter: Defending against the Label-Flipping Attack in Federated "
        "Learning, Neural Networks 170, 2024"
    )

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` for fewer than three clients, or an output layer without a kernel."""
        output_kernel(layout)
        require(
            participants >= 3,
            f"lfighter needs at least 3 participants a round, not {participants}: of two, each is "
            "a cluster",
        )

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Finds the two neurons, clusters, and averages one cluster."""
        finite = updates.finite()
        scores, accepted = np.full(len(updates), np.inf), np.zeros(len(updates), dtype=bool)
        if finite.any():
            rows = Updates.of_rows(relevant_rows(updates.select(finite)))
            centered = centered_products(rows)
            inside = _good_cluster(cosines(products(rows)), two_clusters(centered))
            accepted[finite], scores[finite] = inside, _distance_shares(centered, inside)
        weights = accepted / max(accepted.sum(), 1)
        reasons = map(_reason, finite, accepted, scores)
        return Verdict.dividing(accepted, scores, weights, updates.mean(weights), reasons), state


def output_kernel(layout: WeightLayout) -> Entry:
    """Returns the kernel of the final layer, `[..., neurons]`.

    Raises:
      UsageError: The layer has none.
    """
    layer = layout.final_layer
    for entry in layout.entries:
        if entry.layer == layer and entry.trainable and len(entry.shape) >= 2:
            return entry
    raise UsageError(
        f"the final layer {layer} has no kernel whose neurons lfighter could compare: choose "
        "another defense"
    )


def relevant_rows(updates: Updates) -> np.ndarray:
    """Returns the change of the two neurons that change most, float32 `[n, k]`."""
    kernel, layout, n = output_kernel(updates.layout), updates.layout, len(updates)
    neurons = kernel.shape[-1]
    change = updates.block(layout[kernel.name]).reshape(n, -1, neurons)
    if neurons > 2:
        bias = updates.block(layout.slices.get(f"{kernel.layer}/bias", slice(0)))
        known = bias if bias.shape == (n, neurons) else np.zeros((n, neurons))
        magnitudes = neuron_magnitudes(change.astype(np.float64), known)
        change = change[:, :, np.argsort(magnitudes, kind="stable")[-2:]]
    return change.reshape(n, -1)


def _good_cluster(cosine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the cluster of higher score, or of equal scores that of the first row, bool `[n]`."""
    return other if cluster_score(cosine, ~other) < cluster_score(cosine, other) else ~other


def _distance_shares(gram: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns each row's distance to the mean inside over the distances to both, float64 `[n]`."""
    if inside.all():
        return np.zeros(len(inside))
    near, far = (np.sqrt(distances_to_means(gram, part)) for part in (inside, ~inside))
    return near / (near + far)


def _reason(finite: bool, accepted: bool, score: float) -> str:
    if not finite:
        return NOT_FINITE
    if accepted:
        return ""
    return f"outside the kept cluster of changes at the output neurons, {score:.0%} of the way"

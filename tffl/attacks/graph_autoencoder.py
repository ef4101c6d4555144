"""Graph-autoencoder poisoning: rebuild the honest updates' correlations slightly wrong, then climb.

`paper`, on M columns of the final layer, in which the seen honest updates F `[J, M]` differ most:

    A = cosines of the columns of F  →  B, its Fourier basis;  S = FB
    Â = a graph autoencoder's A      →  B̂;  F̂ = S·B̂ᵀ,  whose first row starts as Δ
    Δ ← Δ + η·∇(F(w') − λ·g(Δ)),  λ ← [λ + ε·g(Δ)]⁺,   g(Δ) = ‖Δ − c‖/d_T − 1

and at last the projection onto g ≤ 0. F(w') is the loss of the next joint model, c and d_T are
mean and spread of the honest updates (`tffl.attacks.bounded`). The β_i of the paper, which select
honest models, are chosen greedily by claimed samples per distance, with Σ β_i·d(w_i, w̄) ≤ Γ. All
other columns of Δ are the mean c. All attackers send the same row.

`released` is what the published code does instead, on whole weights W `[J, d]`:

    Â = σ(ZZᵀ),  Z ~ N(0, 1);   A = the Â of the last round, a random graph at first
    w = mean of the rows of B̂BᵀW, times U(−1, 1) in each coordinate

Data-Agnostic Model Poisoning Against Federated Learning: A Graph Autoencoder Approach
    Kai Li, Jingjing Zheng, Xin Yuan, Wei Ni, Ozgur B. Akan, H. Vincent Poor. IEEE Transactions on
    Information Forensics and Security, 2024.

The paper itself was not available. `paper` follows its abstract, the summary of its equations in
follow-up papers and one of the authors' later programs; encoder and decoder are those of
`tffl.attacks.graph`. `released` follows a description of the authors' program; the edges of the
first graph are assumed to be fair coin flips, and the encoder, whose output the program never uses,
is left out.

Deviations of `paper`: F holds updates, not weights, whose columns would all have cosine ±1. The
attackers compute the loss on their own data; the paper's attackers need none, and it remains
unclear how they know F. The distance to the honest mean is bounded, which is stricter than the
paper's to the joint model (see `distance-constrained`). F and g are scaled to the same slope, and a
step has a given length, whatever the loss; the dual variable of Γ is not needed, for the greedy
choice keeps the budget. The paper leaves open which row of F̂ is sent, and on which columns. M must
be small, since the graph has M² edges; tffl takes columns of the final layer. So few parameters
limit the damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.bounded import BoundedAttack, ExpectedModel, distances_to, length, project, unit
from tffl.attacks.graph import (
    LATENT,
    cosine_adjacency,
    decoded,
    fourier_basis,
    inner_product_graph,
)
from tffl.core import seeds
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

FIRST_PRICE, DUAL_STEP = 0.1, 1.0
"""λ in the first step, and ε."""


def knapsack(values: np.ndarray, weights: np.ndarray, budget: float) -> np.ndarray:
    """Chooses the best values per weight that fit into a budget, bool `[n]`, at least two.

    >>> knapsack(np.array([1.0, 1.0, 3.0]), np.array([2.0, 1.0, 2.0]), 3.5)
    array([False,  True,  True])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.argsort(-values / weights, kind="stable")
    chosen = np.zeros(len(values), bool)
    chosen[order[:2]] = True
    for item in order[2:]:
        chosen[item] = weights[chosen].sum() + weights[item] <= budget
    return chosen


def most_varied(updates: Updates, free: np.ndarray, count: int) -> np.ndarray:
    """Returns the columns int64 in which updates vary most, ascending.

    Args:
      updates: n updates.
      free: bool `[d]`, the trainable columns to choose from.
      count: Largest number of columns; of equal ones, the first.
    """
    variance = np.full(updates.layout.size, -1.0)
    for columns in updates.columns(trainable=True):
        variance[columns] = updates.block(columns).var(axis=0, dtype=np.float64)
    variance[~free] = -1
    chosen = np.argsort(-variance, kind="stable")[:count]
    return np.sort(chosen[variance[chosen] >= 0])


def rebuilt(
    features: np.ndarray, threshold: float, epochs: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns F̂ = F·B·B̂ᵀ float64 `[J, M]`: the features' spectrum on the decoded graph.

    Args:
      features: F, float64 `[J, M]`.
      threshold: Smallest cosine that is an edge.
      epochs: Training steps of the graph autoencoder.
      generator: Draws its initial weights.
    """
    nodes = features.T
    norms = np.sqrt(np.einsum("ij,ij->i", nodes, nodes))[:, None]
    directions = nodes / np.where(norms > 0, norms, 1)
    adjacency = cosine_adjacency(nodes, threshold)
    basis = fourier_basis(adjacency)
    other = fourier_basis(decoded(adjacency, directions, epochs, generator))
    signals = np.einsum("jm,mk->jk", features, basis)
    return np.einsum("jk,mk->jm", signals, other)


@dataclass(frozen=True)
class GraphAutoencoder(BoundedAttack):
    """Sends a row rebuilt from honest updates by a graph autoencoder, within their distance.

    Attributes:
      knows: As in every attack that reads updates; the paper's attackers overhear some.
      variant: `paper`, or what the authors' program does (`released`), which ignores the options
        below and the bound.
      layer: Layers from which the graph's parameters are chosen: the `final` one, where they do
        most damage, or `all`. If `poisoning_ratio` leaves none in the final layer, all.
      columns: M, the largest number of parameters that are nodes of the graph; a round takes time
        proportional to M³.
      threshold: Smallest cosine between two columns that is an edge.
      epochs: Training of the autoencoder.
      budget: Γ, as a share of the sum of the overheard updates' distances from their mean; 1
        selects all of them.

    >>> rows = np.eye(6)
    >>> sent = GraphAutoencoder(variant="released").poison_rows(rows, malicious=[0, 1])
    >>> bool((sent[0] == sent[1]).all()), bool((sent[2:] == rows[2:]).all())
    (True, True)
    """

    knows: Literal["all-benign", "overheard", "colluders"] = "overheard"
    variant: Literal["paper", "released"] = "paper"
    layer: Literal["final", "all"] = "final"
    columns: Annotated[int, Field(ge=2, le=1024)] = 512
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5
    epochs: Annotated[int, Field(ge=1)] = 10
    budget: Annotated[float, Field(gt=0, le=1)] = 0.8

    reference: ClassVar[str] = (
        "Li et al., Data-Agnostic Model Poisoning Against Federated Learning: A Graph Autoencoder "
        "Approach, IEEE TIFS 2024"
    )

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns the row `[1, d]` that all send; `released` remembers the last graph."""
        seen = self.seen(updates, malicious, adversary)
        if self.variant == "released":
            row, graph = released_row(seen, adversary.seed, state.get("graph"))
            return row[None], {"graph": graph}
        seen = self.selected(seen)
        expected = ExpectedModel.of(updates, malicious, seen)
        free = self.modifiable(updates.layout, adversary.seed)
        nodes = free & self.nodes(updates.layout)
        columns = most_varied(seen, nodes if nodes.any() else free, self.columns)
        bound = self.bound(expected, updates, malicious, free)
        move = self.first_row(seen, columns, adversary.seed) - expected.center[columns]
        move = self.climb(move, columns, bound, expected, adversary, updates.round)
        row = expected.center.copy()
        row[columns] += move
        return row[None], state

    def nodes(self, layout: WeightLayout) -> np.ndarray:
        """Returns bool `[d]`: the columns from which those of the graph are chosen."""
        chosen = [self.layer == "all" or e.layer == layout.final_layer for e in layout.entries]
        return np.repeat(chosen, [entry.size for entry in layout.entries])

    def selected(self, seen: Updates) -> Updates:
        """Returns the updates with β = 1."""
        center = seen.mean(seen.sample_counts / seen.sample_counts.sum())
        distances = distances_to(seen, center)
        limit = self.budget * distances.sum()
        return seen.select(knapsack(seen.sample_counts.astype(float), distances, limit))

    def first_row(self, seen: Updates, columns: np.ndarray, seed: int) -> np.ndarray:
        """Returns the first row of F̂, float64 `[M]`."""
        features = np.stack([seen.row(row)[columns] for row in range(len(seen))])
        generator = seeds.generator(seed, "graph autoencoder", seen.round)
        return rebuilt(features.astype(np.float64), self.threshold, self.epochs, generator)[0]

    def climb(
        self,
        move: np.ndarray,
        columns: np.ndarray,
        bound: float,
        expected: ExpectedModel,
        adversary: Adversary,
        round: int,
    ) -> np.ndarray:
        """Solves the Lagrangian dual by sub-gradients, and returns the last Δ − c, float64 `[M]`.

        Args:
          move: Δ − c at first, in the columns of the graph.
          columns: The columns of the graph, int64 `[M]`.
          bound: d_T.
          expected: The next joint model.
          adversary: Computes its loss.
          round: 1-based.
        """
        whole = np.zeros(len(expected.start))
        price = FIRST_PRICE
        for images, labels in self.batches(adversary, round):
            whole[columns] = move
            _, gradient = adversary.gradient(expected.joint(whole), images, labels)
            # Both slopes have length 1, so that λ does not depend on the scale of F.
            slope = unit(gradient[columns]) - price * unit(move)
            move = move + self.step * bound * unit(slope)
            excess = length(move) / bound - 1 if bound > 0 else 0.0
            price = max(0.0, price + DUAL_STEP * excess)
        return project(move, bound)


def released_row(
    seen: Updates, seed: int, graph: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row float32 `[d]` of the authors' program, and its graph float64 `[J, J]`.

    Args:
      seen: J honest updates.
      seed: The experiment's seed.
      graph: The last round's; None at first. It is used if it has J nodes.
    """
    generator = seeds.generator(seed, "released graph", seen.round)
    count = len(seen)
    if graph is None or len(graph) != count:
        coins = np.triu(generator.integers(0, 2, (count, count)), 1).astype(np.float64)
        graph = coins + coins.T
    latent = generator.standard_normal((count, LATENT))
    new = inner_product_graph(np.einsum("il,jl->ij", latent, latent))
    # The mean of the rows of B̂BᵀW is a weighted sum of the rows of W.
    weights = np.einsum("ik,jk->j", fourier_basis(new), fourier_basis(graph)) / count
    mean = weights.sum() * seen.start.astype(np.float64) + seen.mean(weights)
    noise = generator.uniform(-1, 1, len(mean))
    return (mean * noise - seen.start).astype(np.float32), new

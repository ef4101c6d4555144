"""DeepSight: reject clusters of clients in which many train for few classes, clip the rest.

    e_ik = |Δb_ik| + Σ_h |ΔW_ihk|              energy of class k in the final layer of client i
    C_ik = e_ik² / Σ_k e_ik²                   normalized update energy (NEUP)
    T_i  = #{ k : C_ik > max(0.01, 1/K)·max_k C_ik }        threshold exceedings, K classes
    suspicious: T_i <= median_i T_i / 2
    D_ik = mean_x p_k(x; w + Δ_i) / (p_k(x; w) + 1e-6)      division differences (DDif), x noise
    clients are clustered by HDBSCAN: by C, by 1 − cos(Δb_i, Δb_j), by D for each of 3 draws of x
    distance of i and j: mean over (C, cosine, mean over draws) of whether they are in two clusters
    clusters: HDBSCAN on these distances
    rejected: clusters of which at least a third are suspicious
    Δ = mean over the accepted of min(1, S / ‖Δ_i‖)·Δ_i,    S = median_i ‖Δ_i‖ over all i

DeepSight: Mitigating Backdoor Attacks in Federated Learning Through Deep Model Inspection
    Phillip Rieger, Thien Duc Nguyen, Markus Miettinen, Ahmad-Reza Sadeghi. NDSS 2022.

No code of the authors was found, and of the paper's text only its beginning could be read. The
formulas are what two public reimplementations have in common (FLPoison, aggregators/deepsight.py;
BackFed, deepsight_server.py). Where they disagree:

- A client in no cluster (HDBSCAN's noise) is a cluster of its own here, at distance 1 from
  everybody, and accepted unless it is suspicious, as in BackFed. FLPoison takes all of them for one
  cluster when it measures distances, and rejects all of them in the end.
- A cluster is rejected if too many of it are suspicious, as in FLPoison; BackFed's code counts
  those who are not, and accepts a cluster that has less than a third of them.
- HDBSCAN has `min_samples = 3` and, the last time, may return a single cluster and takes the
  distances as such, as in FLPoison; BackFed has HDBSCAN's defaults, on rows of the matrix. The
  package `hdbscan`, which both use, does not count a point among its own neighbors; scikit-learn
  does, and is given 4.

Where tffl does something else than both:

- They divide what their networks return, which are logits for most: near 0 in any of them, the
  ratio is arbitrarily large, and the mean over x is that of a few noise images. tffl divides
  probabilities (option `outputs`).
- They draw 20,000 noise images three times; tffl 250 (option `noise_images`). Each costs a forward
  pass of every client's model: 0.06 s per client and round for LeNet-5 on two busy cores, 11 s for
  ResNet-18, and 80 times that with 20,000. On small digits D of three draws differed by 1 % of what
  D of 20 clients did, by 0.4 % with 1,000 images; in eight rounds the last clusters were those that
  2,000 yield, with 100 already.
- Distances between co-memberships are tied by the dozen, and HDBSCAN breaks ties by the order of
  its rows. Here it gets the clients in the order of their energies, whoever they are.

What follows from the rule:

- HDBSCAN finds at least two clusters or none. If it finds none by any measure, as among clients
  with alike data and fewer than five attackers, all clients are one cluster: nobody is rejected,
  or, if a third of them are suspicious, everybody, and the global model stays as it is. Option
  `smallest` lets fewer than five clients be a cluster.
- It finds attackers by the narrowness of their data. Of small digits, 8 of 24 clients with nothing
  but `patch-backdoor`'s images were all rejected in each of 4 rounds, at most one other client with
  them. With the attack's default share of such images, 6 of 20 were in a cluster with all others:
  nobody was rejected, and in one round everybody.
- The server's seed decides the noise, which is the same every round, uniform over the range of the
  pixels that the network takes (0 … 255 if the server has no images to tell it by).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.geometry import cosines
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.verdict import NOT_FINITE, Verdict
from tffl.defenses.base import Defense, State
from tffl.defenses.parts.clipping import clip_factors
from tffl.defenses.server import Server
from tffl.explain.maps import Probes

Outputs: TypeAlias = Literal["probabilities", "logits"]

DRAWS = 3
"""How often noise images are drawn; clients are clustered for each draw."""

BATCH = 500
"""Noise images at a time."""

NEIGHBORS = 4
"""HDBSCAN's `min_samples`, in scikit-learn's count, where a point is a neighbor of its own."""

SMALL = 1e-6
"""What is added to a divisor."""

LARGEST = 1 / SMALL
"""Of a ratio; it stands for those that are not finite, too."""

DIGITS = 12
"""Distances are rounded to so many, so that equal ones tie whatever their last bit says."""


def update_energies(parts: list[np.ndarray]) -> np.ndarray:
    """Returns the share of each class in the energy of the final layer's updates, float64 `[n, K]`.

    Args:
      parts: The updates of the final layer's variables, finite, `[n, ..., K]` each.

    >>> update_energies([np.array([[3.0, 0.0]]), np.array([[[0.0, -1.0], [0.0, 0.0]]])])
    array([[0.9, 0.1]])
    """
    flat = [np.abs(part, dtype=np.float64).reshape(len(part), -1, part.shape[-1]) for part in parts]
    squares = sum(part.sum(axis=1) for part in flat) ** 2
    total = squares.sum(axis=1, keepdims=True)
    return np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)


def count_exceedings(energies: np.ndarray) -> np.ndarray:
    """Returns for how many classes each client has trained noticeably, int64 `[n]`.

    Args:
      energies: float64 `[n, K]`.

    >>> count_exceedings(np.array([[0.9, 0.1], [0.4, 0.6]]))
    array([1, 2])
    """
    factor = max(0.01, 1 / energies.shape[1])
    return np.sum(energies > factor * energies.max(axis=1, keepdims=True), axis=1)


def ratios(local: np.ndarray, joint: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Returns what clients' models output, divided by what the joint model does, float64.

    Args:
      local: Logits, `[n, m, K]`; they may hold NaN or infinity.
      joint: Logits, `[m, K]`.
      outputs: What is divided.

    Returns:
      `[n, m, K]`, from −`LARGEST` to `LARGEST`, which also stands for NaN.
    """
    from scipy.special import softmax

    with np.errstate(all="ignore"):
        one, other = local.astype(np.float64), joint.astype(np.float64)
        if outputs == "probabilities":
            one, other = softmax(one, axis=-1), softmax(other, axis=-1)
        return np.clip(np.nan_to_num(one / (other + SMALL), nan=LARGEST), -LARGEST, LARGEST)


def partition(distances: np.ndarray, smallest: int, single: bool = False) -> np.ndarray:
    """Returns the cluster of each point, int64 `[n]`; a point of none is one of its own.

    Args:
      distances: float64 `[n, n]`, symmetric.
      smallest: Number of points that make a cluster.
      single: Whether all points together may be a cluster.

    >>> points = np.array([0.0, 1.0, 2.0, 3.0, 50.0, 51.0, 52.0, 53.0, 900.0])
    >>> partition(np.abs(points[:, None] - points), 4)
    array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    """
    from sklearn.cluster import HDBSCAN

    labels = np.full(len(distances), -1)
    if len(distances) >= max(smallest, NEIGHBORS):
        clustering = HDBSCAN(
            min_cluster_size=smallest,
            min_samples=NEIGHBORS,
            metric="precomputed",
            allow_single_cluster=single,
            copy=True,  # it overwrites the matrix otherwise
        )
        labels = clustering.fit_predict(np.round(distances, DIGITS)).astype(np.int64)
    alone = labels < 0
    labels[alone] = labels.max(initial=-1) + 1 + np.arange(alone.sum())
    return labels


def ensemble(
    energies: np.ndarray, biases: np.ndarray, differences: list[np.ndarray], smallest: int
) -> np.ndarray:
    """Returns each client's cluster, int64 `[n]`, whatever the order of clients.

    Args:
      energies: float64 `[n, K]`.
      biases: Updates of the final bias, `[n, K]`.
      differences: Division differences, float64 `[n, K]` for each draw of noise.
      smallest: Number of clients that make a cluster.
    """
    order = np.lexsort(np.round(np.hstack([energies, *differences]), DIGITS).T)
    bias = biases[order].astype(np.float64)
    by_angle = _apart(1 - cosines(bias @ bias.T), smallest)
    by_energy = _apart(_distances(energies[order]), smallest)
    by_output = [_apart(_distances(each[order]), smallest) for each in differences]
    merged = (by_angle + by_energy + np.mean(by_output, axis=0)) / 3
    labels = np.empty(len(order), np.int64)
    labels[order] = partition(merged, smallest, single=True)
    return labels


def _apart(distances: np.ndarray, smallest: int) -> np.ndarray:
    """Returns 1.0 for pairs in two clusters, 0.0 for others, `[n, n]`."""
    labels = partition(distances, smallest)
    return (labels[:, None] != labels).astype(np.float64)


def _distances(features: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distances of all pairs of rows, float64 `[n, n]`."""
    return np.stack([np.linalg.norm(features - row, axis=1) for row in features])


@dataclass(frozen=True)
class DeepSight(Defense):
    """Rejects clusters of clients in which many train for few classes, and clips the others.

    The server runs every client's model on noise, and needs no images. The score of a client is the
    share of its cluster that is suspicious. Weights are equal shares, whatever sample counts claim,
    before clipping. Whoever does not change the final layer at all is suspicious. Rows with NaN or
    infinity are rejected and no part of n.

    Attributes:
      noise_images: Number of images in each of three draws; the same ones every round.
      suspicious: Share of suspicious clients from which on a cluster is rejected.
      smallest: Number of clients that make a cluster.
      outputs: What of the models' outputs is divided.

    >>> DeepSight().judge_rows(np.zeros((9, 4)))
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: DeepSight looks at clients' models: give model=
    """

    noise_images: Annotated[int, Field(ge=1)] = 250
    suspicious: Annotated[float, Field(gt=0, le=1)] = 1 / 3
    smallest: Annotated[int, Field(ge=2)] = 5
    outputs: Outputs = "probabilities"

    reference: ClassVar[str] = (
        "Rieger et al., DeepSight: Mitigating Backdoor Attacks in Federated Learning Through Deep "
        "Model Inspection, NDSS 2022"
    )

    @property
    def uses_model(self) -> bool:
        """It evaluates clients' models."""
        return True

    @property
    def judges_statistics(self) -> bool:
        """They are part of the models that it evaluates."""
        return True

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` if there is no final bias, or no cluster could ever form."""
        layout.final_bias  # noqa: B018
        fewest = max(self.smallest, NEIGHBORS)
        require(
            participants >= fewest,
            f"deepsight needs at least {fewest} participants a round, not {participants}: fewer "
            "make no cluster",
        )

    def judge(self, updates: Updates, server: Server, state: State) -> tuple[Verdict, State]:
        """Clusters, rejects, clips and averages."""
        finite = updates.finite()
        scores, sizes = np.full(len(updates), np.inf), np.zeros(len(updates), dtype=np.int64)
        factors = np.zeros(len(updates))
        if finite.any():
            kept = updates.select(finite)
            scores[finite], sizes[finite] = self._suspicion(kept, server)
            norms = kept.norms(trainable=True)
            factors[finite] = clip_factors(norms, float(np.median(norms)))
        rejected = scores >= self.suspicious
        weights = ~rejected / max((~rejected).sum(), 1)
        verdict = Verdict(
            flagged=rejected,
            convicted=rejected,
            accepted=~rejected,
            weights=weights,
            scores=scores,
            threshold=float(np.nextafter(self.suspicious, 0)),  # that share itself is too much
            aggregate=updates.mean(weights * factors),
            reasons=tuple(map(_reason, finite, rejected, scores, sizes.tolist())),
        )
        return verdict, state

    def _suspicion(self, updates: Updates, server: Server) -> tuple[np.ndarray, np.ndarray]:
        """Returns the suspicious share of each client's cluster, and the cluster's size, `[n]`."""
        energies = update_energies(_final_layer(updates))
        exceedings = count_exceedings(energies)
        suspects = exceedings <= np.median(exceedings) / 2
        differences = list(self._differences(updates, server))
        biases = updates.block(updates.layout.final_bias)
        labels = ensemble(energies, biases, differences, self.smallest)
        sizes = np.bincount(labels)
        return (np.bincount(labels, weights=suspects) / sizes)[labels], sizes[labels]

    def _differences(self, updates: Updates, server: Server) -> Iterator[np.ndarray]:
        """Yields the division differences float64 `[n, K]` of each draw."""
        assert server.model is not None and server.explainer is not None
        start = updates.start
        joint = Updates.of_rows(np.zeros((1, len(start))), layout=updates.layout, start=start)
        shape = server.model.input_shape[1:]
        for draw in range(DRAWS):
            generator, total = seeds.generator(server.seed, "deepsight", draw), 0.0
            for begin in range(0, self.noise_images, BATCH):
                count = min(BATCH, self.noise_images - begin)
                images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
                probes = Probes(images, np.zeros(count, np.int32))
                with np.errstate(over="ignore"):
                    local = server.explainer.logits(updates, probes)
                expected = server.explainer.logits(joint, probes)[0]
                total = total + ratios(local, expected, self.outputs).sum(axis=1)
            yield np.asarray(total / self.noise_images)


def _final_layer(updates: Updates) -> list[np.ndarray]:
    """Returns the updates of the final layer's kernel and bias, float32 `[n, ..., K]` each."""
    layout = updates.layout
    classes = layout.final_bias.stop - layout.final_bias.start
    return [
        updates.block(span).reshape(len(updates), -1, classes)
        for entry, span in zip(layout.entries, layout.spans, strict=True)
        if entry.layer == layout.final_layer and entry.trainable and entry.shape[-1] == classes
    ]


def _reason(finite: bool, rejected: bool, share: float, size: int) -> str:
    if not finite:
        return NOT_FINITE
    if not rejected:
        return ""
    if size == 1:
        return "in no cluster, and its update concentrates on few classes"
    return f"in a cluster of {size}, of which {share:.0%} concentrate on few classes"

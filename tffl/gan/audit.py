"""The audit itself: clients' logits in, voted labels, accuracies and a threshold out.

    p_ix = argmax_c f_i(x)_c                     what model i takes audit image x for
    y_x  = argmax_c #{i: p_ix = c}               its label, by majority; the lowest class of a tie
    a_i  = mean_x [p_ix = y_x]                   model i's accuracy, x over the images that count
    suspected: a_i < θ

Everything here is NumPy on arrays, knows no network, and serves any server that has logits.

Detecting and mitigating poisoning attacks in federated learning using generative adversarial
networks
    Ying Zhao, Junjun Chen, Jiale Zhang, Di Wu, Michael Blumenstein, Shui Yu. Concurrency and
    Computation: Practice and Experience. Algorithm 1, lines 10–23.

The paper gives neither a value of θ nor a rule for it, and says nothing of ties, of images that the
majority takes for the extra class "fake" (they do not count here: clients never saw a fake), or of
models whose outputs are not finite (they have no vote and are suspected at once).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from tffl.core.clusters import two_means as split_in_two
from tffl.core.thresholds import NORMAL

Rule: TypeAlias = Literal["fixed", "mean-std", "median-mad", "two-means"]
"""How the threshold comes about."""

NO_PREDICTION = -1
"""Stands for the prediction of a model whose output is not finite, and for a label without one."""

ROUNDING = 1e-9
"""By so much thresholds are lowered, lest the last bit of a mean part equal accuracies."""


@dataclass(frozen=True)
class Audit:
    """What n models say of m images.

    Attributes:
      predictions: int64 `[n, m]`, or `NO_PREDICTION`.
      labels: int64 `[m]`, by majority vote, or `NO_PREDICTION`.
      support: int64 `[m]`, how many models voted for the label.
      kept: bool `[m]`, which images count.
      accuracies: float64 `[n]`, on the images that count; NaN if there are none, and for models
        that are not usable.
      usable: bool `[n]`, whose outputs are all finite.
    """

    predictions: np.ndarray
    labels: np.ndarray
    support: np.ndarray
    kept: np.ndarray
    accuracies: np.ndarray
    usable: np.ndarray


def audit(
    logits: np.ndarray, classes: int, *, agreement: float = 0.0, balance: bool = False
) -> Audit:
    """Lets n models vote on m images, and measures each of them against the majority.

    Args:
      logits: `[n, m, outputs]`, `outputs >= classes`; further outputs stand for "fake".
      classes: Number of real classes, C.
      agreement: Only images count on whose label at least this share of the voters agrees.
      balance: Of each class, only the first ⌈m / C⌉ images count.

    >>> logits = np.eye(3)[[[0, 1, 2], [0, 1, 1], [0, 1, 2]]]
    >>> audit(logits, classes=3).accuracies.round(2)
    array([1.  , 0.67, 1.  ])
    """
    predicted = predictions(logits)
    usable = np.asarray((predicted != NO_PREDICTION).all(axis=1))
    labels, support = majority(predicted[usable], logits.shape[2])
    kept = (labels != NO_PREDICTION) & (labels < classes)
    kept &= support >= agreement * usable.sum()
    if balance:
        kept &= balanced(labels, classes, kept)
    accurate = np.where(usable, accuracies(predicted, labels, kept), np.nan)
    return Audit(predicted, labels, support, kept, accurate, usable)


def predictions(logits: np.ndarray) -> np.ndarray:
    """Returns the highest output of each model for each image, int64 `[n, m]`.

    The lowest of those that tie; `NO_PREDICTION` where an output is not finite.

    Args:
      logits: `[n, m, outputs]`.

    >>> predictions(np.array([[[0.0, 2.0], [1.0, 1.0], [np.nan, 1.0]]]))
    array([[ 1,  0, -1]])
    """
    finite = np.isfinite(logits).all(axis=2)
    return np.where(finite, np.where(finite[..., None], logits, 0).argmax(axis=2), NO_PREDICTION)


def majority(predicted: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the voted label of each image and how many voted for it, int64 `[m]` each.

    The lowest class of those that tie, so that the order of the clients does not matter;
    `NO_PREDICTION`, with support 0, if nobody has a vote.

    Args:
      predicted: int64 `[n, m]`, `NO_PREDICTION` for no vote.
      outputs: Number of classes that can be voted for.

    >>> labels, support = majority(np.array([[0, 2], [1, 2], [1, 0], [0, 2]]), outputs=3)
    >>> labels.tolist(), support.tolist()
    ([0, 2], [2, 3])
    """
    images = predicted.shape[1]
    votes = np.zeros((images, outputs), dtype=np.int64)
    rows, columns = np.nonzero(predicted != NO_PREDICTION)
    np.add.at(votes, (columns, predicted[rows, columns]), 1)
    support = votes.max(axis=1, initial=0)
    return np.where(support > 0, votes.argmax(axis=1), NO_PREDICTION), support


def balanced(labels: np.ndarray, classes: int, eligible: np.ndarray) -> np.ndarray:
    """Returns bool `[m]`: the first ⌈m / classes⌉ eligible images of each label.

    So no class counts for more than its share of the audit set, and rare ones gain weight; a class
    of a few images never decides alone, as it would if classes were averaged.

    Args:
      labels: int64 `[m]`.
      classes: C.
      eligible: bool `[m]`, which images may count.

    >>> balanced(np.array([0, 0, 0, 1]), 2, np.array([True, True, True, True]))
    array([ True,  True, False,  True])
    """
    most = -(-len(labels) // classes)
    result = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels[eligible]):
        result[np.flatnonzero(eligible & (labels == label))[:most]] = True
    return result


def accuracies(predicted: np.ndarray, labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns each model's accuracy on the images that count, float64 `[n]`; NaN without any.

    Args:
      predicted: int64 `[n, m]`.
      labels: int64 `[m]`.
      kept: bool `[m]`, which images count.
    """
    if not kept.any():
        return np.full(len(predicted), np.nan)
    return np.asarray((predicted[:, kept] == labels[kept]).mean(axis=1))


def confusion(
    predicted: np.ndarray, labels: np.ndarray, kept: np.ndarray, outputs: int
) -> np.ndarray:
    """Returns int64 `[n, outputs, outputs]`: how often a model takes images of a label for what.

    Args:
      predicted: int64 `[n, m]`; `NO_PREDICTION` is not counted.
      labels: int64 `[m]`.
      kept: bool `[m]`, which images count.
      outputs: Number of outputs of the models.
    """
    result = np.zeros((len(predicted), outputs, outputs), dtype=np.int64)
    for matrix, row in zip(result, predicted, strict=True):
        chosen = kept & (row != NO_PREDICTION)
        np.add.at(matrix, (labels[chosen], row[chosen]), 1)
    return result


def threshold(
    values: np.ndarray, rule: Rule, *, theta: float = 0.8, k: float = 3.0, floor: float = 0.02
) -> float:
    """Returns θ: models whose accuracy is below are suspected; NaN if there is no threshold.

    θ is an accuracy, so it is never below 0: where accuracies spread wide, a rule's bound falls
    below what any model can reach, and nobody is suspected.

    Args:
      values: Accuracies float64 `[n]`; those that are not finite do not count.
      rule: `fixed` θ; `mean-std`, mean − k·std; `median-mad`; or `two-means`.
      theta: For `fixed`.
      k: For `mean-std` and `median-mad`.
      floor: The least spread of `median-mad`, and the least distance of the clusters' means for
        `two-means`.
    """
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return math.nan
    if rule == "two-means":
        return two_means(known, floor)
    if rule == "fixed":
        return max(theta - ROUNDING, 0.0)
    bound = mean_std(known, k) if rule == "mean-std" else median_mad(known, k, floor)
    return max(bound, 0.0)


def mean_std(values: np.ndarray, k: float) -> float:
    """Returns mean − k·std, the population's standard deviation.

    One outlier of n lies at most √(n − 1) standard deviations off: with k = 3 a single attacker of
    10 is never below.

    >>> round(mean_std(np.array([1.0, 1.0, 1.0, 0.6]), k=1), 4)
    0.7268
    """
    return float(values.mean() - k * values.std() - ROUNDING)


def median_mad(values: np.ndarray, k: float, floor: float) -> float:
    """Returns median − k·max(1.4826·MAD, floor), where MAD is the median of |a − median|.

    The floor is there because honest models mostly agree to an image or two, and the MAD is then 0.

    >>> round(median_mad(np.array([1.0, 0.9, 1.0, 0.98, 0.2]), k=3, floor=0.02), 4)
    0.891
    """
    center = np.median(values)
    spread = max(NORMAL * float(np.median(np.abs(values - center))), floor)
    return float(center - k * spread - ROUNDING)


def two_means(values: np.ndarray, floor: float) -> float:
    """Returns the lowest value of the higher of two clusters, as 2-means splits them exactly.

    NaN if there are fewer than two values, or the clusters' means are less than `floor` apart:
    2-means always finds two, also where all are honest.

    >>> round(two_means(np.array([0.5, 0.95, 1.0, 0.9]), floor=0.1), 4)
    0.9
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return math.nan
    ranked = np.sort(values)
    size = int(split_in_two(ranked)[2])
    apart = ranked[size:].mean() - ranked[:size].mean()
    return math.nan if apart < floor else float(ranked[size] - ROUNDING)

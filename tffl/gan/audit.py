"""The audit: from clients' logits to voted labels, accuracies and a threshold.

    p_ix = argmax_c f_i(x)_c                     the class that model i predicts for image x
    y_x  = argmax_c #{i: p_ix = c}               the majority label of x; the lowest class of a tie
    a_i  = mean_x [p_ix = y_x]                   the accuracy of model i on the images that count
    suspected: a_i < θ

All functions take NumPy arrays and no networks, so that any server with logits can use them.

Detecting and mitigating poisoning attacks in federated learning using generative adversarial
networks
    Ying Zhao, Junjun Chen, Jiale Zhang, Di Wu, Michael Blumenstein, Shui Yu. Concurrency and
    Computation: Practice and Experience. Algorithm 1, lines 10–23.

The paper gives neither a value of θ nor a rule for it. It does not mention ties, images whose
majority label is the extra class "fake" (here they do not count, because clients never saw a fake
image), or models whose outputs are not finite (here they have no vote and are suspected).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from tffl.core.clusters import two_means as split_in_two
from tffl.core.thresholds import NORMAL

Rule: TypeAlias = Literal["fixed", "mean-std", "median-mad", "two-means"]
"""How the threshold is computed."""

NO_PREDICTION = -1
"""The prediction of an output that is not finite, and the label of an image without a vote."""

ROUNDING_MARGIN = 1e-9
"""Subtracted from thresholds, so that rounding of a mean does not separate equal accuracies."""


@dataclass(frozen=True)
class Audit:
    """The predictions of n models for m images, and their accuracies.

    Attributes:
      predictions: int64 `[n, m]`, predicted classes, or `NO_PREDICTION`.
      labels: int64 `[m]`, labels by majority vote, or `NO_PREDICTION`.
      support: int64 `[m]`, number of votes for the label.
      kept: bool `[m]`, which images count.
      accuracies: float64 `[n]`, on the images that count; NaN if no image counts, and for models
        that are not usable.
      usable: bool `[n]`, which models have finite outputs only.
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
    """Labels m images by the votes of n models, and computes each model's accuracy.

    Args:
      logits: `[n, m, outputs]`, `outputs >= classes`; further outputs mean "fake".
      classes: Number of real classes, C.
      agreement: An image counts if at least this share of the voters agrees on its label.
      balance: Whether only the first ⌈m / C⌉ images of each class count.

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
    """Returns the class that each model predicts for each image, int64 `[n, m]`.

    In a tie, it is the lowest class; where an output is not finite, it is `NO_PREDICTION`.

    Args:
      logits: `[n, m, outputs]`.

    >>> predictions(np.array([[[0.0, 2.0], [1.0, 1.0], [np.nan, 1.0]]]))
    array([[ 1,  0, -1]])
    """
    finite = np.isfinite(logits).all(axis=2)
    return np.where(finite, np.where(finite[..., None], logits, 0).argmax(axis=2), NO_PREDICTION)


def majority(predicted: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the majority label of each image and its number of votes, int64 `[m]` each.

    In a tie, the label is the lowest class, so that the order of the clients does not matter;
    without any vote, it is `NO_PREDICTION` with 0 votes.

    Args:
      predicted: int64 `[n, m]`; `NO_PREDICTION` is not a vote.
      outputs: Number of outputs of the models.

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
    """Selects the first ⌈m / classes⌉ eligible images of each label, as a mask bool `[m]`.

    No class counts for more than its share of the audit set, so that rare classes gain weight. If
    class accuracies were averaged instead, a class of a few images could decide alone.

    Args:
      labels: int64 `[m]`.
      classes: Number of real classes, C.
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
    """Returns each model's accuracy on the images that count, float64 `[n]`; NaN if none count.

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
    """Returns each model's confusion matrix, int64 `[n, outputs, outputs]`: label, prediction.

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
    """Returns the threshold θ, below which an accuracy is suspect; NaN if there is none.

    θ is never below 0. Where accuracies vary widely, a rule's bound may be negative, and then no
    model is suspected.

    Args:
      values: Accuracies, float64 `[n]`; those that are not finite are ignored.
      rule: `fixed`, θ itself; `mean-std`; `median-mad`; or `two-means`.
      theta: θ of `fixed`.
      k: Number of standard deviations of `mean-std` and `median-mad`.
      floor: Smallest spread of `median-mad`, and smallest distance between the means of the two
        clusters of `two-means`.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return math.nan
    if rule == "two-means":
        return two_means(finite, floor)
    if rule == "fixed":
        return max(theta - ROUNDING_MARGIN, 0.0)
    bound = mean_std(finite, k) if rule == "mean-std" else median_mad(finite, k, floor)
    return max(bound, 0.0)


def mean_std(values: np.ndarray, k: float) -> float:
    """Returns mean − k·std, with the standard deviation of the population.

    One outlier among n values is at most √(n − 1) standard deviations from the mean: with k = 3, a
    single attacker among 10 clients is never below the threshold.

    >>> round(mean_std(np.array([1.0, 1.0, 1.0, 0.6]), k=1), 4)
    0.7268
    """
    return float(values.mean() - k * values.std() - ROUNDING_MARGIN)


def median_mad(values: np.ndarray, k: float, floor: float) -> float:
    """Returns median − k·max(1.4826·MAD, floor), where MAD is the median of |a − median|.

    The floor is needed because honest models often differ by an image or two only: MAD may be 0.

    >>> round(median_mad(np.array([1.0, 0.9, 1.0, 0.98, 0.2]), k=3, floor=0.02), 4)
    0.891
    """
    center = np.median(values)
    spread = max(NORMAL * float(np.median(np.abs(values - center))), floor)
    return float(center - k * spread - ROUNDING_MARGIN)


def two_means(values: np.ndarray, floor: float) -> float:
    """Returns the lowest value of the higher of two clusters, found by exact 2-means.

    It is NaN if there are fewer than two values, or if the means of the clusters differ by less
    than `floor`, because 2-means finds two clusters even where all clients are honest.

    >>> round(two_means(np.array([0.5, 0.95, 1.0, 0.9]), floor=0.1), 4)
    0.9
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return math.nan
    ranked = np.sort(values)
    size = int(split_in_two(ranked)[2])
    apart = ranked[size:].mean() - ranked[:size].mean()
    return math.nan if apart < floor else float(ranked[size] - ROUNDING_MARGIN)

"""Whether the scores of one round fall into two clusters, by 2-means and the gap statistic.

There is more than one cluster if 2-means shrinks the sum of squared deviations W by more than it
does for uniform draws,

    ln(W_1 / W_2) > mean ln W*_1 − mean ln W*_2 + √(1 + 1/B)·std ln W*_2,    B = 10 draws

The search for the best number of clusters always begins with this comparison, and this module only
decides between one cluster and more.

Estimating the Number of Clusters in a Data Set via the Gap Statistic
    Robert Tibshirani, Guenther Walther, Trevor Hastie. JRSS B 2001.

FLDetector's published code takes the logarithm of the mean W* instead of the mean logarithm.
"""

from __future__ import annotations

import math

import numpy as np

from tffl.core.thresholds import TOLERANCE

REFERENCES = 10
"""B, the number of uniform draws for the gap statistic."""


def two_means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits numbers into two clusters, exactly.

    Args:
      values: float64 `[..., n]`, `n >= 2`.

    Returns:
      W_1 and W_2, the sums of squared deviations from the mean of all and from the means of the
      two clusters, and the size of the lower cluster; each `[...]`.

    >>> [float(x) for x in two_means(np.array([1.0, 8.0, 3.0]))]
    [26.0, 2.0, 2.0]
    """
    n = values.shape[-1]
    ranked = np.sort(values - values.mean(axis=-1, keepdims=True), axis=-1)
    sizes = np.arange(1, n)
    between = np.cumsum(ranked, axis=-1)[..., :-1] ** 2 * n / (sizes * (n - sizes))
    total = (ranked**2).sum(axis=-1)
    return total, np.maximum(total - between.max(axis=-1), 0), between.argmax(axis=-1) + 1


def cluster_threshold(scores: np.ndarray, generator: np.random.Generator) -> float:
    """Returns the largest score of the lower of two clusters; NaN if there is only one.

    Args:
      scores: float64 `[n]`; fewer than 3 are always one cluster.
      generator: Draws the reference samples of the gap statistic.
    """
    if len(scores) < 3 or np.ptp(scores) <= TOLERANCE * np.abs(scores).max():
        return math.nan
    whole, split, lower = two_means((scores - scores.min()) / np.ptp(scores))
    reference_whole, reference_split, _ = two_means(generator.random((REFERENCES, len(scores))))
    with np.errstate(divide="ignore"):
        shrunk = np.log(whole) - np.log(split)
        uniform_whole, uniform_split = np.log(reference_whole), np.log(reference_split)
    spread = math.sqrt(1 + 1 / REFERENCES) * uniform_split.std()
    if shrunk <= uniform_whole.mean() - uniform_split.mean() + spread:
        return math.nan
    return float(np.sort(scores)[lower - 1])

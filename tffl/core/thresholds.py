"""Thresholds for the scores of one round: higher scores are suspicious.

All rules use finite scores only, so that a client cannot disable them with NaN, and raise the
result by one part in a million, so that the last bit of a mean does not separate equal scores.
Without a finite score there is no threshold (NaN).
"""

from __future__ import annotations

import math

import numpy as np

from tffl.core.errors import require

TOLERANCE = 1e-6
"""Relative; about ten times the spacing of float32, in which clients send their weights."""

NORMAL = 1.4826
"""Factor from the median absolute deviation to the standard deviation of a normal distribution."""


def mean_std(scores: np.ndarray, alpha: float, sample: bool = False) -> float:
    """Returns mean + α·std, with the population's standard deviation.

    No m of n scores can all lie more than √((n − m)/m) standard deviations above the mean, so many
    outliers can hide one another: see `check_alpha`.

    Args:
      scores: float64 `[n]`.
      alpha: α >= 0.
      sample: Divide by n − 1 instead, as for a sample; by 1 if there is one score.

    >>> round(mean_std(np.array([0.0, 0.0, 0.0, 4.0]), alpha=1), 4)
    2.7321
    """
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return math.nan
    deviations = np.square(finite - finite.mean()).sum()
    spread = math.sqrt(deviations / max(len(finite) - sample, 1))
    return _lift(finite.mean() + alpha * spread)


def median_mad(scores: np.ndarray, k: float, floor: float = 0.0) -> float:
    """Returns median + k·max(1.4826·MAD, floor·median), with MAD the median of |score − median|.

    Fewer than half of the scores can neither raise the median beyond the others nor enlarge the
    MAD without limit. If more than half are equal, the MAD is 0, and every higher score exceeds the
    threshold.

    Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993, who advise k = 3.5.

    Args:
      scores: float64 `[n]`.
      k: k >= 0.
      floor: Smallest spread, relative to the median, for scores that are never negative: a few
        scores may agree so closely by chance that ordinary scores would be flagged.

    >>> round(median_mad(np.array([1.0, 2.0, 3.0, 4.0, 99.0]), k=2), 4)
    5.9652
    >>> round(median_mad(np.array([9.9, 10.0, 10.1]), k=4, floor=0.25), 4)
    20.0
    """
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        return math.nan
    center = np.median(finite)
    spread = max(NORMAL * np.median(np.abs(finite - center)), floor * center)
    return _lift(center + k * spread)


def top(scores: np.ndarray, count: int) -> float:
    """Returns the threshold that `count` of the scores exceed; fewer, if some are tied.

    Args:
      scores: float64 `[n]`.
      count: f, from 0 to n; infinite scores exceed every threshold and count among them.

    >>> round(top(np.array([5.0, 1.0, 4.0, 2.0]), count=2), 4)
    2.0
    """
    ranked = np.sort(scores)
    kept = ranked[: len(ranked) - count]
    kept = kept[np.isfinite(kept)]
    if len(kept) == 0:
        return math.nan if not np.isfinite(ranked).any() else -math.inf
    return _lift(float(kept[-1]))


def check_alpha(alpha: float, n: int) -> None:
    """Raises `UsageError` if mean + α·std can flag nobody among n scores, whatever they are."""
    bound = math.sqrt(max(n - 1, 0))
    require(
        alpha < bound,
        f"defense.alpha = {alpha:g} can never flag anyone among {n} participants: m attackers lie "
        f"at most sqrt((n - m) / m) standard deviations above the mean, a single one {bound:.3g}; "
        "choose a smaller alpha",
    )


def _lift(threshold: float) -> float:
    return float(threshold + TOLERANCE * abs(threshold))

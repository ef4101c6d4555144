"""Rules that say, given the scores of a round, above which one a client is flagged.

Each is a small frozen object that is called with scores float64 `[n]`; any function that does the
same will do in its place. All use finite scores only, see `tffl.core.thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from tffl.core import seeds
from tffl.core.clusters import cluster_threshold
from tffl.core.options import Options
from tffl.core.thresholds import mean_std, median_mad, top
from tffl.defenses.parts.tolerance import attacker_count

Threshold: TypeAlias = Callable[[np.ndarray], float]
"""Scores float64 `[n]` → above which one a client is flagged; NaN if no score is finite."""

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class MeanStd(Options):
    """Flags above mean + α·std.

    Attributes:
      alpha: α >= 0.
      sample: Take the standard deviation of a sample, not of a population.

    >>> round(MeanStd(alpha=1)(np.array([0.0, 0.0, 0.0, 4.0])), 4)
    2.7321
    """

    alpha: NotNegative
    sample: bool = False

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round."""
        return mean_std(scores, self.alpha, self.sample)


@dataclass(frozen=True)
class MedianMad(Options):
    """Flags above median + k·max(1.4826·MAD, floor·median).

    Attributes:
      k: How many robust standard deviations are too many.
      floor: The least spread, relative to the median, for scores that are never negative.
      least: The threshold is never below it.

    >>> round(MedianMad(k=2)(np.array([1.0, 2.0, 3.0, 4.0, 99.0])), 4)
    5.9652
    """

    k: NotNegative = 3.5
    floor: NotNegative = 0.0
    least: float = -math.inf

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round."""
        return max(median_mad(scores, self.k, self.floor), self.least)


@dataclass(frozen=True)
class Highest(Options):
    """Flags the f highest scores; fewer, if some are tied.

    Attributes:
      malicious: f, a count, or a fraction of the scored clients.

    >>> Highest(2)(np.array([5.0, 1.0, 4.0, 2.0])).__round__(4)
    2.0
    """

    malicious: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round."""
        return top(scores, attacker_count(self.malicious, len(scores)) or 0)


@dataclass(frozen=True)
class AllButLowest(Options):
    """Flags all but the m lowest scores; scores that equal the m-th are not flagged.

    Attributes:
      kept: m.

    >>> AllButLowest(3)(np.array([5.0, 1.0, 4.0, 2.0])).__round__(4)
    4.0
    """

    kept: Annotated[int, Field(ge=1)]

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round."""
        return top(scores, max(len(scores) - self.kept, 0))


@dataclass(frozen=True)
class Fixed(Options):
    """Flags above a value that is known beforehand.

    Attributes:
      value: The threshold.
      unscored: Holds in rounds without a finite score, too.

    >>> Fixed(1.0)(np.array([0.5, np.inf])), Fixed(1.0)(np.array([np.inf]))
    (1.0, nan)
    """

    value: float
    unscored: bool = False

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round."""
        return self.value if self.unscored or np.isfinite(scores).any() else math.nan


@dataclass(frozen=True)
class Gap(Options):
    """Flags the higher of two clusters, if the gap statistic finds more than one.

    Attributes:
      seed: Of the statistic's uniform references.
      purpose: What they are drawn for: another word, other draws.
      round: Another round, other draws.

    >>> Gap(seed=0)(np.array([1.0, 1.1, 0.9, 1.0, 7.0, 7.1]))
    1.1
    """

    seed: int
    purpose: str = "gap"
    round: int = 0

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round; NaN if there is one cluster only."""
        generator = seeds.generator(self.seed, self.purpose, self.round)
        return cluster_threshold(scores[np.isfinite(scores)], generator)


def highest_or_outlying(malicious: int | float | None, k: float) -> Threshold:
    """Returns the rule for the f highest scores, or for outliers where f is not given.

    Args:
      malicious: f, a count or a fraction of the clients; None if unknown.
      k: Of `MedianMad`.
    """
    return MedianMad(k) if malicious is None else Highest(malicious)

"""ROC and precision–recall curves of scores; scores may be tied or infinite."""

from __future__ import annotations

import numpy as np


def roc(malicious: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the false and true positive rates of every threshold.

    Args:
      malicious: bool `[n]` with both values.
      scores: float64 `[n]` without NaN; a higher score is more suspicious.

    Returns:
      Two arrays, float64 `[k]`, that ascend from 0 to 1.

    >>> [list(map(float, rates)) for rates in roc(np.array([1, 0, 1]) == 1, np.array([3, 2, 1]))]
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]]
    """
    caught, blamed = _counts(malicious, scores)
    corners = _corners(blamed, caught)
    return blamed[corners] / blamed[-1], caught[corners] / caught[-1]


def precision_recall(
    malicious: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the recall and precision of every threshold, and the average precision.

    The average precision is Σ (R_i − R_{i−1}) · P_i over descending thresholds.

    Args:
      malicious: bool `[n]` with at least one True.
      scores: float64 `[n]` without NaN; a higher score is more suspicious.

    Returns:
      Recall and precision, float64 `[k]` each, and the average precision.
    """
    caught, blamed = _counts(malicious, scores)
    recall = caught[1:] / caught[-1]
    precision = caught[1:] / (caught[1:] + blamed[1:])
    average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    # A threshold above all scores flags nobody, so the first point repeats the next precision.
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision]), average


def area(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the area under a piecewise linear curve with ascending x."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _counts(malicious: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many malicious and how many honest rows each threshold flags."""
    ranks = np.unique(scores, return_inverse=True)[1]
    highest_first = ranks.max() - ranks
    caught = np.bincount(highest_first, weights=malicious)
    blamed = np.bincount(highest_first, weights=~malicious)
    return _cumulated(caught), _cumulated(blamed)


def _cumulated(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(counts)])


def _corners(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns which points of a staircase are corners, as a mask bool `[k]`."""
    turns = np.diff(x)[1:] * np.diff(y)[:-1] != np.diff(x)[:-1] * np.diff(y)[1:]
    return np.concatenate([[True], turns, [True]])

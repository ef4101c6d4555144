"""Metrics that come with tffl: what test outputs say beyond accuracy and loss.

Each is NaN, which leaves its cell empty, if an output is not finite.
"""

from __future__ import annotations

import math

import numpy as np

BINS = 15
"""Of confidences, as Guo et al. take them."""


def mean_confidence(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean probability that the model gives to the class that it predicts.

    >>> round(mean_confidence(np.array([0]), np.array([[0.0, 0.0]])), 2)
    0.5
    """
    return float(_confidences(logits).mean())


def worst_class_accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Accuracy on the class on which it is lowest.

    >>> worst_class_accuracy(np.array([0, 0, 1]), np.array([[1, 0], [0, 1], [0, 1]]))
    0.5
    """
    if not np.isfinite(logits).all():
        return math.nan
    right = logits.argmax(axis=1) == labels
    return float(min(right[labels == label].mean() for label in np.unique(labels)))


def calibration_error(labels: np.ndarray, logits: np.ndarray) -> float:
    """Expected calibration error: how far confidence is from accuracy, over 15 equal bins.

    On Calibration of Modern Neural Networks. Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q.
    Weinberger. ICML 2017.

    >>> round(calibration_error(np.array([0, 1]), np.array([[0.0, 0.0], [0.0, 0.0]])), 2)
    0.0
    """
    confidences = _confidences(logits)
    if not np.isfinite(confidences).all():
        return math.nan
    right = logits.argmax(axis=1) == labels
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, confidences - right, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _confidences(logits: np.ndarray) -> np.ndarray:
    """Returns the largest softmax probability of each row, float64 `[N]`; NaN if not finite."""
    finite = np.isfinite(logits).all(axis=1)
    kept = np.where(finite[:, None], logits, 0).astype(np.float64)
    odds = np.exp(kept - kept.max(axis=1, keepdims=True))
    return np.where(finite, 1 / odds.sum(axis=1), math.nan)

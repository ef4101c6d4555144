"""How well a verdict identifies the malicious clients; malicious is the positive class.

These functions need the ground truth, which defenses never see.
"""

from __future__ import annotations

import math

import numpy as np

Metrics = dict[str, float | None]


def detection(malicious: np.ndarray, flagged: np.ndarray, scores: np.ndarray) -> Metrics:
    """Compares flags and scores with the truly malicious clients.

    A ratio 0/0 is undefined, and None instead of 0: the recall without malicious clients, and the
    precision without flags.

    Args:
      malicious: bool `[n]`, the ground truth.
      flagged: bool `[n]`, which clients the defense suspects.
      scores: float64 `[n]`, higher is more suspicious; may be infinite, or NaN without a score.

    Returns:
      `true_positives`, `false_positives`, `true_negatives`, `false_negatives`, whole numbers;
      `recall`, `precision`, `fpr` (false positive rate), `detection_accuracy`, `f1`,
      `balanced_accuracy` (mean of recall and 1 − fpr; the AUC of the hard verdict) and `auc` in
      0 … 1; `mcc` (Matthews correlation) in −1 … 1.
    """
    malicious, flagged = np.asarray(malicious, dtype=bool), np.asarray(flagged, dtype=bool)
    tp, fp = int((malicious & flagged).sum()), int((~malicious & flagged).sum())
    tn, fn = int((~malicious & ~flagged).sum()), int((malicious & ~flagged).sum())
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    balanced = None if recall is None or specificity is None else (recall + specificity) / 2
    return {
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "recall": recall,
        "precision": _ratio(tp, tp + fp),
        "fpr": _ratio(fp, fp + tn),
        "detection_accuracy": _ratio(tp + tn, len(malicious)),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        "balanced_accuracy": balanced,
        "auc": roc_auc(malicious, scores),
    }


def roc_auc(malicious: np.ndarray, scores: np.ndarray) -> float | None:
    """Returns the probability that a malicious client scores above an honest one.

    Ties count half. None if a score is NaN, or if all or none are malicious.

    Args:
      malicious: bool `[n]`.
      scores: float64 `[n]`; infinite scores rank first or last.

    >>> roc_auc(np.array([True, False, False]), np.array([2.0, 2.0, 1.0]))
    0.75
    """
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any() or malicious.all() or not malicious.any():
        return None
    from sklearn.metrics import roc_auc_score

    # Ranks, since scikit-learn refuses infinity.
    ranks = np.unique(scores, return_inverse=True)[1]
    return float(roc_auc_score(malicious, ranks))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None

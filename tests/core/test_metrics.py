"""Detection metrics: hand-computed, undefined cases, agreement with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from tffl.core.metrics import detection, roc_auc

CLIENTS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(-5, 5)), min_size=1, max_size=25
)


def split(clients: list[tuple[bool, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    malicious, flagged, scores = zip(*clients, strict=True)
    return np.array(malicious), np.array(flagged), np.array(scores, dtype=np.float64)


def test_by_hand() -> None:
    malicious = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    flagged = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    scores = np.array([9, 8, 3, 8, 1, 1, 1, 1, 3, 0], dtype=np.float64)
    result = detection(malicious, flagged, scores)
    assert result == {
        "true_positives": 2,
        "false_positives": 1,
        "true_negatives": 6,
        "false_negatives": 1,
        "recall": pytest.approx(2 / 3),
        "precision": pytest.approx(2 / 3),
        "fpr": pytest.approx(1 / 7),
        "detection_accuracy": pytest.approx(0.8),
        "f1": pytest.approx(2 / 3),
        "mcc": pytest.approx((2 * 6 - 1 * 1) / (3 * 3 * 7 * 7) ** 0.5),
        "balanced_accuracy": pytest.approx((2 / 3 + 6 / 7) / 2),
        # Of 3 × 7 pairs: 7 won; 6 won, 1 tied; 5 won, 1 tied, 1 lost.
        "auc": pytest.approx((7 + 6.5 + 5.5) / 21),
    }


def test_undefined_is_none_and_not_zero() -> None:
    honest = detection(np.zeros(3, bool), np.zeros(3, bool), np.arange(3.0))
    undefined = {key for key, value in honest.items() if value is None}
    assert undefined == {"recall", "precision", "f1", "mcc", "balanced_accuracy", "auc"}
    assert honest["fpr"] == 0
    assert honest["detection_accuracy"] == 1
    lost = detection(np.ones(3, bool), np.zeros(3, bool), np.arange(3.0))
    undefined = {key for key, value in lost.items() if value is None}
    assert undefined == {"precision", "fpr", "mcc", "balanced_accuracy", "auc"}
    assert lost["recall"] == 0
    assert lost["f1"] == 0
    nobody = detection(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0))
    assert nobody["detection_accuracy"] is None


def test_auc_takes_infinity_and_refuses_nan() -> None:
    malicious = np.array([True, True, False, False])
    assert roc_auc(malicious, np.array([np.inf, 1.0, -np.inf, 2.0])) == 0.75
    assert roc_auc(malicious, np.array([np.inf, np.inf, np.inf, np.inf])) == 0.5
    assert roc_auc(malicious, np.array([1.0, np.nan, 0.0, 0.0])) is None
    assert roc_auc(malicious, np.full(4, np.nan)) is None


@settings(deadline=None)
@given(clients=CLIENTS)
def test_agrees_with_scikit_learn(clients: list[tuple[bool, bool, int]]) -> None:
    malicious, flagged, scores = split(clients)
    result = detection(malicious, flagged, scores)
    tn, fp, fn, tp = sklearn.confusion_matrix(malicious, flagged, labels=[False, True]).ravel()
    assert [result[f"{kind}s"] for kind in ("true_positive", "false_positive")] == [tp, fp]
    assert [result[f"{kind}s"] for kind in ("true_negative", "false_negative")] == [tn, fn]
    expected = {
        "recall": sklearn.recall_score(malicious, flagged, zero_division=np.nan),
        "precision": sklearn.precision_score(malicious, flagged, zero_division=np.nan),
        "f1": sklearn.f1_score(malicious, flagged, zero_division=np.nan),
        "detection_accuracy": sklearn.accuracy_score(malicious, flagged),
    }
    if malicious.any() and not malicious.all():
        expected["balanced_accuracy"] = sklearn.balanced_accuracy_score(malicious, flagged)
        expected["auc"] = sklearn.roc_auc_score(malicious, scores)
        if flagged.any() and not flagged.all():
            expected["mcc"] = sklearn.matthews_corrcoef(malicious, flagged)
    for name, value in expected.items():
        assert result[name] == (None if np.isnan(value) else pytest.approx(value)), name


@settings(deadline=None)
@given(clients=CLIENTS, seed=st.integers(0, 9))
def test_order_and_scale_do_not_matter(clients: list[tuple[bool, bool, int]], seed: int) -> None:
    malicious, flagged, scores = split(clients)
    order = np.random.default_rng(seed).permutation(len(clients))
    assert detection(malicious, flagged, scores) == detection(
        malicious[order], flagged[order], np.exp(scores[order])
    )

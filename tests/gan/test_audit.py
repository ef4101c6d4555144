"""Votes, accuracies and thresholds against plain Python, and the exported graph against NumPy."""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.gan import audit
from tffl.gan.audit import NO_PREDICTION, threshold
from tffl.gan.serving import AuditGraph

CLASSES, OUTPUTS = 4, 5


def draw(seed: int, n: int = 7, m: int = 30) -> np.ndarray:
    """Returns logits of models that mostly agree; most of them predict "fake" for some images."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(m, OUTPUTS)) + np.eye(OUTPUTS)[rng.integers(0, OUTPUTS, m)]
    return (common + rng.normal(0, 0.7, (n, m, OUTPUTS))).astype(np.float32)


def by_hand(logits: np.ndarray, agreement: float, balance: bool) -> tuple[list, list, list]:
    """Computes labels, counting images and accuracies in plain Python."""
    voters = [model for model in logits if np.isfinite(model).all()]
    labels, kept, seen = [], [], Counter()
    for image in range(logits.shape[1]):
        votes = Counter(int(np.argmax(model[image])) for model in voters)
        label = min(votes, key=lambda c: (-votes[c], c)) if votes else NO_PREDICTION
        counts = 0 <= label < CLASSES and votes[label] >= agreement * len(voters)
        if counts and balance:
            seen[label] += 1
            counts = seen[label] <= -(-logits.shape[1] // CLASSES)
        labels.append(label)
        kept.append(counts)
    accuracies = []
    for model in logits:
        hits = [np.argmax(model[i]) == labels[i] for i in range(len(labels)) if kept[i]]
        fine = bool(hits) and np.isfinite(model).all()
        accuracies.append(sum(hits) / len(hits) if fine else np.nan)
    return labels, kept, accuracies


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
def test_audits_equal_plain_python(agreement: float, balance: bool) -> None:
    for seed in range(5):
        logits = draw(seed)
        logits[2, 3, 1] = np.nan
        logits[5, 0, 0] = np.inf
        result = audit.audit(logits, CLASSES, agreement=agreement, balance=balance)
        labels, kept, accuracies = by_hand(logits, agreement, balance)
        assert result.labels.tolist() == labels
        assert result.kept.tolist() == kept
        np.testing.assert_allclose(result.accuracies, accuracies)
        assert result.usable.tolist() == [row not in (2, 5) for row in range(7)]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(7)))
def test_the_order_of_clients_does_not_matter(seed: int, order: list[int]) -> None:
    logits = draw(seed)
    first, second = (audit.audit(x, CLASSES, agreement=0.5) for x in (logits, logits[order]))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.accuracies[order], second.accuracies)


def test_ties_go_to_the_lowest_class() -> None:
    labels, support = audit.majority(np.array([[3, 2], [1, 0], [3, 0], [1, NO_PREDICTION]]), 4)
    assert labels.tolist() == [1, 0]
    assert support.tolist() == [2, 2]


def test_no_image_counts_without_votes() -> None:
    result = audit.audit(np.full((3, 4, OUTPUTS), np.nan), CLASSES)
    assert (result.labels == NO_PREDICTION).all()
    assert not result.kept.any() and not result.usable.any()
    assert np.isnan(result.accuracies).all()


def test_fake_labels_do_not_count_but_fake_predictions_are_errors() -> None:
    says = np.array([[0, 4], [0, 4], [4, 4]])
    result = audit.audit(np.eye(OUTPUTS)[says], CLASSES)
    assert result.kept.tolist() == [True, False]
    assert result.accuracies.tolist() == [1, 1, 0]


def test_confusion_counts_labels_and_predictions() -> None:
    says = np.array([[0, 1, 1, 0], [0, 2, NO_PREDICTION, 2]])
    labels, kept = np.array([0, 1, 1, 0]), np.array([True, True, True, False])
    result = audit.confusion(says, labels, kept, 3)
    assert result[0].tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 0]]
    assert result[1].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


VALUES = [0.98, 0.4, 1.0, 0.97, np.nan, 0.99, 1.0]


def test_thresholds_equal_their_formulas() -> None:
    known = [v for v in VALUES if v == v]
    values, center = np.array(VALUES), statistics.median(known)
    mad = 1.4826 * statistics.median(abs(v - center) for v in known)
    expected = {
        ("fixed", 0.0): 0.7,
        ("mean-std", 0.0): statistics.mean(known) - 2 * statistics.pstdev(known),
        ("median-mad", 0.0): center - 2 * mad,
        ("median-mad", 0.05): center - 2 * 0.05,
        ("two-means", 0.1): 0.97,
    }
    for (rule, floor), value in expected.items():
        found = threshold(values, rule, theta=0.7, k=2, floor=floor)  # type: ignore[arg-type]
        assert found == pytest.approx(value, abs=1e-8), rule
        assert found < value  # an accuracy equal to θ is accepted


@pytest.mark.parametrize("rule", ["mean-std", "median-mad"])
def test_threshold_is_never_negative(rule: audit.Rule) -> None:
    """Where accuracies vary widely, the bound of the formula would be negative."""
    logits = np.random.default_rng(0).normal(size=(6, 40, OUTPUTS)).astype(np.float32)
    accuracies = audit.audit(logits, CLASSES).accuracies
    assert threshold(accuracies, rule, k=50) == 0
    served = AuditGraph(CLASSES, OUTPUTS, 0.0, False, rule, 0.8, 50.0, 0.02)(logits)
    assert served["threshold"] == 0 and not served["suspected"].numpy().any()
    assert threshold(np.array([0.0, 0.0]), "fixed", theta=0.0) == 0


def test_threshold_is_nan_without_accuracies_or_clusters() -> None:
    assert np.isnan(threshold(np.full(3, np.nan), "median-mad"))
    assert np.isnan(threshold(np.array([0.9, 0.91, 0.92]), "two-means", floor=0.1))
    assert np.isnan(threshold(np.array([0.9]), "two-means"))


@pytest.mark.parametrize("rule", ["fixed", "mean-std", "median-mad", "two-means"])
def test_exported_graph_equals_numpy(rule: audit.Rule) -> None:
    options = {"theta": 0.75, "k": 1.5, "floor": 0.02}
    for seed, balance in ((1, True), (2, False)):
        logits = draw(seed)
        logits[3, :20] = -logits[3, :20]
        logits[6, 0, 0] = np.nan
        expected = audit.audit(logits, CLASSES, agreement=0.5, balance=balance)
        bound = threshold(expected.accuracies, rule, **options)
        served = AuditGraph(CLASSES, OUTPUTS, 0.5, balance, rule, **options)(logits)
        np.testing.assert_array_equal(served["labels"], expected.labels)
        np.testing.assert_array_equal(served["kept"], expected.kept)
        np.testing.assert_allclose(served["accuracy"], expected.accuracies, rtol=1e-6)
        np.testing.assert_allclose(served["threshold"], bound, rtol=1e-6)
        suspected = ~expected.usable | (expected.accuracies < bound)
        np.testing.assert_array_equal(served["suspected"], suspected)
        assert suspected[6]


@pytest.mark.parametrize("rule", ["median-mad", "two-means"])
def test_exported_graph_works_without_usable_models(rule: audit.Rule) -> None:
    auditor = AuditGraph(CLASSES, OUTPUTS, 0.5, True, rule, 0.8, 3.0, 0.02)
    served = auditor(np.full((3, 4, OUTPUTS), np.nan, np.float32))
    assert served["suspected"].numpy().all()
    assert np.isnan(served["threshold"])

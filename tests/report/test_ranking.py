"""ROC and precision–recall against scikit-learn, and what it cannot do: infinite scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from tffl.report.ranking import area, precision_recall, roc

PAIRS = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30).filter(
    lambda pairs: len({malicious for malicious, _ in pairs}) == 2
)


@given(PAIRS)
def test_areas_are_those_of_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    malicious, scores = np.array([p[0] for p in pairs]), np.array([float(p[1]) for p in pairs])
    false, true = roc(malicious, scores)
    assert area(false, true) == pytest.approx(metrics.roc_auc_score(malicious, scores))
    theirs = metrics.roc_curve(malicious, scores, drop_intermediate=False)
    assert np.interp(theirs[0], false, true) == pytest.approx(
        np.interp(theirs[0], theirs[0], theirs[1])
    )
    recall, precision, average = precision_recall(malicious, scores)
    assert average == pytest.approx(metrics.average_precision_score(malicious, scores))
    their_precision, their_recall, _ = metrics.precision_recall_curve(malicious, scores)
    ours = set(zip(recall[1:].round(9), precision[1:].round(9), strict=True))
    assert ours == set(zip(their_recall[:-1].round(9), their_precision[:-1].round(9), strict=True))


def test_by_hand_with_an_infinite_score() -> None:
    malicious = np.array([True, False, True, False])
    false, true = roc(malicious, np.array([np.inf, 2.0, 1.0, -np.inf]))
    assert false.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0]
    assert true.tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert area(false, true) == 0.75
    recall, precision, average = precision_recall(malicious, np.array([np.inf, 2.0, 1.0, -np.inf]))
    assert recall.tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert precision.tolist() == [1.0, 1.0, 0.5, pytest.approx(2 / 3), 0.5]
    assert average == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)


def test_straight_lines_lose_their_middle() -> None:
    malicious = np.array([True] * 5 + [False] * 5)
    false, true = roc(malicious, np.arange(10.0)[::-1])
    assert (false.tolist(), true.tolist()) == ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])

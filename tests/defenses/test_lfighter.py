"""LFighter: the authors' numbers, output layers of every kind, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.geometry import cosines
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.lfighter import LFighter, cluster_score, neuron_magnitudes, relevant_rows

LAYOUT = WeightLayout((Entry("logits/kernel", (3, 4), True), Entry("logits/bias", (4,), True)))
FEWER_ALIKE = np.array(
    [
        [4, -5, 23, 1, -3, -4, 13, 4, -5, 12, 2, 3, 1, 1, 1, 0],
        [6, 1, 22, 1, -4, -8, 16, -3, 5, 10, 5, -5, 0, 3, 2, 2],
        [3, -4, 21, 6, -1, -9, 16, 5, 2, 7, 6, 2, -3, 1, 3, 1],
        [-2, -3, 24, 5, -1, -9, 14, 5, -6, 8, 4, 4, -2, 0, 0, 3],
        [6, 12, 2, -5, -2, -8, 6, 0, 5, 0, 6, -5, 0, -2, -3, 1],
        [6, 10, 0, 2, -4, 0, 10, -1, -1, 4, 2, -1, 3, 0, -3, -3],
        [1, 2, -8, 5, 0, 0, -2, -1, 4, 10, 0, 1, 2, -1, 0, 3],
        [-6, 0, 4, 0, 4, -10, -4, -6, -1, 6, 6, -4, -2, 2, -3, -3],
        [-3, -12, 2, 5, -5, 0, -2, -2, 0, 6, -6, 4, -3, -1, 0, -3],
    ],
    dtype=float,
)
MORE_ALIKE = np.array(
    [
        [0, -7, -17, -2, 0, -13, -15, 5, 3, 0, 18, -1, -1, 3, 2, -1],
        [-3, -7, -23, 3, 4, -18, -12, 4, -3, 1, 19, 0, 1, 1, 3, -3],
        [4, -10, -18, -5, -2, -14, -11, -2, -1, -3, 16, -1, 0, 1, 0, 3],
        [5, -8, -19, 0, -4, -18, -12, -5, 0, -1, 20, 6, 3, 2, 0, 3],
        [3, -5, -22, -4, 6, -13, -17, -2, -5, 1, 18, 6, -3, 1, -2, -2],
        [-1, -10, -2, 1, 0, -2, 8, 4, -3, 4, -4, 5, 1, 2, 3, -2],
        [-1, 0, -4, 2, -6, 10, -12, 4, 3, -2, -2, 5, 3, 2, -1, -3],
        [-4, -6, 2, 0, 1, -4, 0, 6, 4, 8, 4, 3, 2, 2, 0, -2],
        [-6, 8, 6, -4, -5, -12, 8, 1, 1, 4, 10, 4, -2, -1, 2, -1],
    ],
    dtype=float,
)
BINARY = np.array(
    [
        [1, 4, 5, 4],
        [2, 6, 7, 5],
        [2, 6, 6, 4],
        [-1, 5, 3, -3],
        [3, -1, 3, -7],
        [2, 7, -9, 7],
        [7, 9, -9, 9],
    ],
    dtype=float,
)
AUTHORS = {
    "fewer": (FEWER_ALIKE, 4, (0.444444444, 0.789369897), [0, 0, 0, 0, 1, 1, 1, 1, 1]),
    "more": (MORE_ALIKE, 5, (0.555555556, 0.714343371), [0, 0, 0, 0, 0, 1, 1, 1, 1]),
    "binary": (BINARY, 5, (0.818755723, 0.285714286), [1, 1, 1, 1, 1, 0, 0]),
}
"""Matrix, size of the first cluster, the scores of both, and who is kept.

They follow class LFD of najeebjebreel/LFighter, `aggregation.py` at cc50fe6, statement by
statement, with the k-means of scikit-learn: 20 seeds of one and of ten starts agree on them.
"""


@pytest.mark.parametrize("name", AUTHORS)
def test_numbers_of_the_authors_code(name: str) -> None:
    rows, size, scores, kept = AUTHORS[name]
    entry = Entry("logits/kernel", (2, 2), True)
    layout = WeightLayout((entry,)) if name == "binary" else LAYOUT
    features = relevant_rows(Updates.of_rows(rows, layout=layout)).astype(np.float64)
    cosine, first = cosines(features @ features.T), np.arange(len(rows)) < size
    found = cluster_score(cosine, first), cluster_score(cosine, ~first)
    np.testing.assert_allclose(found, scores, atol=1e-6)
    verdict = LFighter().judge_rows(rows, layout=layout, counts=np.arange(1, len(rows) + 1))
    assert verdict.accepted.tolist() == verdict.weights.astype(bool).tolist() == [*map(bool, kept)]
    np.testing.assert_allclose(verdict.aggregate, rows[verdict.accepted].mean(axis=0), atol=1e-6)
    assert (verdict.scores[~verdict.accepted] > 0.5).all()
    assert (verdict.scores[verdict.accepted] < 0.5).all()
    assert "outside the kept cluster" in verdict.reasons[kept.index(0)]


def test_the_two_neurons_that_change_most_are_those_of_the_authors() -> None:
    kernel, bias = FEWER_ALIKE[:, :12].reshape(-1, 3, 4), FEWER_ALIKE[:, 12:]
    expected = [74.567349, 122.408308, 166.340735, 74.837412]
    np.testing.assert_allclose(neuron_magnitudes(kernel, bias), expected, atol=1e-6)
    features = relevant_rows(Updates.of_rows(FEWER_ALIKE, layout=LAYOUT))
    np.testing.assert_array_equal(features, FEWER_ALIKE[:, [1, 2, 5, 6, 9, 10]])


def test_only_the_output_layer_is_clustered() -> None:
    layout = WeightLayout((Entry("conv/kernel", (2, 2), True), *LAYOUT.entries))
    far = np.zeros((9, 4))
    far[4:7] = 1000
    rows = np.concatenate([far, FEWER_ALIKE], axis=1)
    assert LFighter().judge_rows(rows, layout=layout).accepted.tolist() == [False] * 4 + [True] * 5


def test_without_obtuse_angles_the_larger_cluster_is_kept() -> None:
    layout = WeightLayout((Entry("logits/kernel", (2, 2), True),))
    rows = np.array([[1, 0, 9, 9], [2, 0, 8, 9], [1, 9, 0, 1], [0, 8, 1, 1], [2, 7, 0, 0.0]])
    assert LFighter().judge_rows(rows, layout=layout).accepted.tolist() == [False] * 2 + [True] * 3
    tied = LFighter().judge_rows(rows[:4], layout=layout)  # both 1/2: the first client's
    assert tied.accepted.tolist() == [True, True, False, False]


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(UsageError, match="lfighter needs at least 3 participants a round, not 2"):
        LFighter().judge_rows(FEWER_ALIKE[:2], layout=LAYOUT)
    scaled = WeightLayout((*LAYOUT.entries, Entry("scale/gamma", (4,), True)))
    with pytest.raises(UsageError, match="the final layer scale has no kernel"):
        LFighter().check(9, scaled)

"""Coordinate-wise median: by hand, against NumPy and Flower, and with a captured minority."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.median import Median

from .conftest import LAYOUT

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.just(LAYOUT.size)),
    elements=st.integers(-64, 64).map(lambda i: i / 8),  # exact in float32, also when shifted
)


def create(**options: object) -> Median:
    return defenses.create("median", options)


def make(matrix: object, counts: object = None) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.arange(1, n + 1) if counts is None else np.asarray(counts)  # not to matter
    return Updates(1, np.arange(n), counts, np.zeros(LAYOUT.size, np.float32), matrix, LAYOUT)


def judge(defense: Median, updates: Updates, server: Server) -> Verdict:
    verdict, state = defense.judge(updates, server, defense.init(server))
    assert state == {}
    return verdict


def rows(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, LAYOUT.size)).astype(np.float32)


def test_odd_by_hand(server) -> None:
    matrix = np.outer([1, 2, 9], np.ones(LAYOUT.size))
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_array_equal(verdict.aggregate, np.float32(2))
    assert verdict.scores.tolist() == [1, 0, 1]
    np.testing.assert_allclose(verdict.weights, 1 / 3)


def test_even_is_the_mean_of_the_middle_two_by_hand(server) -> None:
    matrix = np.outer([7, 1, 2, 9], np.ones(LAYOUT.size))
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_array_equal(verdict.aggregate, np.float32(4.5))
    assert verdict.scores.tolist() == [0, 1, 0, 1]


def test_scores_of_ties_by_hand(server) -> None:
    matrix = np.outer([1, 1, 1, 5, 9], np.ones(LAYOUT.size))
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_allclose(verdict.scores, [2 / 3, 2 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 20])
def test_agrees_with_numpy_and_flower(server, n: int) -> None:
    peer = pytest.importorskip("flwr.server.strategy.aggregate")
    matrix = rows(n, n)
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_allclose(verdict.aggregate, np.median(matrix, axis=0), rtol=1e-6)
    theirs = peer.aggregate_median([([row], 1) for row in matrix])[0]
    np.testing.assert_allclose(verdict.aggregate, theirs, rtol=1e-6)


@pytest.mark.parametrize("size", [1e30, -1e30, 3e38])
def test_a_minority_cannot_leave_the_others(server, size: float) -> None:
    matrix = rows(1, 9)
    matrix[[0, 3, 5, 8]] = size
    with np.errstate(all="raise"):
        verdict = judge(create(malicious=4), make(matrix), server)
    others = np.delete(matrix, [0, 3, 5, 8], axis=0)
    assert (verdict.aggregate >= others.min(axis=0)).all()
    assert (verdict.aggregate <= others.max(axis=0)).all()
    np.testing.assert_array_equal(verdict.scores[[0, 3, 5, 8]], 1)


def test_rows_that_are_not_finite_are_left_out(server) -> None:
    matrix = rows(2, 6)
    matrix[1, -1] = -np.inf
    verdict = judge(create(), make(matrix), server)
    expected = np.median(np.delete(matrix, 1, axis=0), axis=0)
    np.testing.assert_array_equal(verdict.aggregate, expected)
    np.testing.assert_allclose(verdict.weights, [0.2, 0, 0.2, 0.2, 0.2, 0.2])
    assert not verdict.accepted[1]


def test_nobody_finite_leaves_the_model(server) -> None:
    verdict = judge(create(), make(np.full((3, LAYOUT.size), np.nan)), server)
    assert not verdict.aggregate.any()
    assert not verdict.weights.any()


def test_frozen_columns_are_medians_but_do_not_count(server) -> None:
    matrix = rows(4, 5)
    before = judge(create(), make(matrix), server)
    matrix[:, ~LAYOUT.trainable] = np.array([[0], [0], [0], [50], [-7]])
    verdict = judge(create(), make(matrix), server)
    assert not verdict.aggregate[~LAYOUT.trainable].any()
    np.testing.assert_array_equal(verdict.scores, before.scores)


@properties
@given(matrix=matrices, seed=st.integers(0, 9))
def test_order_and_sample_counts_do_not_matter(server, matrix, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(matrix))
    one = judge(create(), make(matrix), server)
    other = judge(create(), make(matrix[order], counts=order * 9), server)
    np.testing.assert_array_equal(other.aggregate, one.aggregate)
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-12)


@properties
@given(matrix=matrices, shift=st.integers(-8, 8), scale=st.sampled_from([-4, -1, 0.5, 2]))
def test_follows_shift_and_scale(server, matrix, shift: int, scale: float) -> None:
    one = judge(create(), make(matrix), server)
    other = judge(create(), make(matrix * np.float32(scale) + np.float32(shift)), server)
    np.testing.assert_array_equal(other.aggregate, one.aggregate * scale + shift)
    np.testing.assert_allclose(other.scores, one.scores, rtol=1e-12)


@properties
@given(matrix=matrices)
def test_shares_sum_up(server, matrix) -> None:
    verdict = judge(create(), make(matrix), server)
    n = len(matrix)
    assert verdict.weights.sum() == pytest.approx(1)
    assert verdict.scores.sum() == pytest.approx(n - (1 if n % 2 else 2))
    assert ((verdict.scores >= 0) & (verdict.scores <= 1 + 1e-12)).all()


def test_refuses_a_majority(layout) -> None:
    with pytest.raises(UsageError, match=r"median needs n > 2f: .* f = 3 is too many"):
        create(malicious=3).check(6, layout)
    create(malicious=2).check(6, layout)
    create().check(1, layout)

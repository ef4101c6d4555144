"""Trimmed mean: by hand, against naive sorting, Flower and SciPy, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.trimmed_mean import TrimmedMean, trim_count

from .conftest import LAYOUT

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
matrices = arrays(
    np.float32,
    st.tuples(st.integers(3, 8), st.just(LAYOUT.size)),
    elements=st.floats(-100, 100, width=32),
)


def create(**options: object) -> TrimmedMean:
    return defenses.create("trimmed-mean", options)


def make(matrix: object, counts: object = None) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.arange(1, n + 1) if counts is None else np.asarray(counts)  # not to matter
    return Updates(1, np.arange(n), counts, np.zeros(LAYOUT.size, np.float32), matrix, LAYOUT)


def judge(defense: TrimmedMean, updates: Updates, server: Server) -> Verdict:
    verdict, state = defense.judge(updates, server, defense.init(server))
    assert state == {}
    return verdict


def rows(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, LAYOUT.size)).astype(np.float32)


def naive(matrix: np.ndarray, count: int) -> np.ndarray:
    """Column by column, from the definition."""
    columns = [sorted(column) for column in matrix.T.astype(float).tolist()]
    kept = [column[count : len(column) - count] for column in columns]
    return np.array([sum(column) / len(column) for column in kept])


def test_by_hand(updates, server) -> None:
    round = updates([[1, 0, 0], [2, 1, 0], [3, 2, 0], [4, 3, 0], [90, -9, 0]])
    verdict = judge(create(malicious=1), round, server)
    np.testing.assert_allclose(verdict.aggregate[-3:], [3, 1, 0])
    np.testing.assert_allclose(verdict.aggregate[:-3], 0.5)
    # 13 columns are trainable. In 11 of them all are equal, and each has a chance of 2/5.
    tied = 11 * 2 / 5
    np.testing.assert_allclose(verdict.scores, (tied + np.array([1, 0, 0, 1, 2])) / 13)
    assert verdict.flagged.tolist() == [False, False, False, False, True]
    assert verdict.accepted.all()
    np.testing.assert_allclose(verdict.weights, 0.2)
    assert verdict.reasons[4].startswith("distrusted: score 0.4923")


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 11])
@pytest.mark.parametrize("malicious", [None, 0, 1, 0.3])
def test_agrees_with_naive_sorting(server, n: int, malicious: float | None) -> None:
    matrix = rows(n, n)
    verdict = judge(create(malicious=malicious), make(matrix), server)
    expected = naive(matrix, trim_count(malicious, n))
    np.testing.assert_allclose(verdict.aggregate, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [5, 10, 23])
@pytest.mark.parametrize("proportion", [0.2, 0.4])
def test_agrees_with_flower_and_scipy(server, n: int, proportion: float) -> None:
    peer = pytest.importorskip("flwr.server.strategy.aggregate")
    stats = pytest.importorskip("scipy.stats")
    matrix = rows(n, n)
    verdict = judge(create(malicious=int(proportion * n)), make(matrix), server)
    theirs = peer.aggregate_trimmed_avg([([row], 1) for row in matrix], proportion)[0]
    np.testing.assert_allclose(verdict.aggregate, theirs, rtol=1e-5, atol=1e-6)
    reference = stats.trim_mean(matrix.astype(float), proportion, axis=0)
    np.testing.assert_allclose(verdict.aggregate, reference, rtol=1e-6, atol=1e-7)


def test_told_nothing_it_trims_as_flower_does(server) -> None:
    peer = pytest.importorskip("flwr.server.strategy.aggregate")
    for n in (5, 9, 10, 14, 35):
        matrix = rows(n, n)
        theirs = peer.aggregate_trimmed_avg([([row], 1) for row in matrix], 0.2)[0]
        ours = judge(create(), make(matrix), server).aggregate
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_told_nothing_it_trims_at_least_one(server) -> None:
    matrix = rows(0, 3)
    matrix[2] = 1e30
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_array_equal(verdict.aggregate, np.maximum(matrix[0], matrix[1]))


@pytest.mark.parametrize("size", [1e30, -1e30, 3e38])
def test_huge_rows_are_trimmed(server, size: float) -> None:
    matrix = rows(1, 10)
    honest = matrix.copy()
    matrix[[3, 7]] = size
    with np.errstate(all="raise"):
        verdict = judge(create(malicious=2), make(matrix), server)
    others = np.delete(honest, [3, 7], axis=0)
    assert (verdict.aggregate >= others.min(axis=0)).all()
    assert (verdict.aggregate <= others.max(axis=0)).all()
    assert verdict.flagged.nonzero()[0].tolist() == [3, 7]
    np.testing.assert_allclose(verdict.scores[[3, 7]], 1)


def test_huge_values_that_are_kept_come_through(server) -> None:
    matrix = np.full((4, LAYOUT.size), 3e38)
    with np.errstate(all="raise"):
        verdict = judge(create(malicious=0), make(matrix), server)
    np.testing.assert_array_equal(verdict.aggregate, np.float32(3e38))


def test_rows_that_are_not_finite_are_left_out(server) -> None:
    matrix = rows(2, 6)
    clean = judge(create(malicious=1), make(matrix[:5]), server)
    matrix[5, 4] = np.nan
    verdict = judge(create(malicious=1), make(matrix), server)
    np.testing.assert_array_equal(verdict.aggregate, clean.aggregate)
    np.testing.assert_array_equal(verdict.scores[:5], clean.scores)
    np.testing.assert_allclose(verdict.weights, [0.2] * 5 + [0])
    assert verdict.scores[5] == np.inf
    assert not verdict.accepted[5]


def test_too_few_rows_are_left(server) -> None:
    matrix = rows(3, 5)
    matrix[2:] = np.nan
    verdict = judge(create(malicious=2), make(matrix), server)
    np.testing.assert_allclose(verdict.aggregate, matrix[:2].mean(axis=0), rtol=1e-6)


def test_frozen_columns_are_trimmed_but_do_not_count(server) -> None:
    matrix = np.zeros((5, LAYOUT.size))
    matrix[4, ~LAYOUT.trainable] = 1000
    verdict = judge(create(malicious=1), make(matrix), server)
    assert not verdict.aggregate.any()
    np.testing.assert_allclose(verdict.scores, 0.4)


@properties
@given(matrix=matrices, seed=st.integers(0, 9))
def test_order_and_sample_counts_do_not_matter(server, matrix, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(matrix))
    one = judge(create(malicious=1), make(matrix), server)
    other = judge(create(malicious=1), make(matrix[order], counts=order + 7), server)
    np.testing.assert_array_equal(other.aggregate, one.aggregate)
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-12)


@properties
@given(matrix=matrices, malicious=st.sampled_from([None, 0, 1, 0.3]))
def test_stays_within_the_hull(server, matrix, malicious: float | None) -> None:
    verdict = judge(create(malicious=malicious), make(matrix), server)
    assert (verdict.aggregate >= matrix.min(axis=0)).all()
    assert (verdict.aggregate <= matrix.max(axis=0)).all()
    assert verdict.weights.sum() == pytest.approx(1)
    expected = 2 * trim_count(malicious, len(matrix))
    assert verdict.scores.sum() == pytest.approx(expected)


@properties
@given(row=arrays(np.float32, LAYOUT.size, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_identical_rows(server, row) -> None:
    verdict = judge(create(malicious=2), make([row] * 5), server)
    np.testing.assert_allclose(verdict.aggregate, row, rtol=1e-6)
    np.testing.assert_allclose(verdict.scores, 0.8)
    assert not verdict.flagged.any()


@pytest.mark.parametrize(
    ("malicious", "participants", "message"),
    [
        (5, 10, r"trimmed-mean needs n > 2f: with n = 10 .* f = 5 .* at most 4"),
        (0.5, 11, "at most 5"),
        (1, 2, "at most 0"),
        (None, 2, "needs at least 3 participants a round, not 2"),
    ],
)
def test_refuses_what_it_cannot_bear(layout, malicious, participants, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        create(malicious=malicious).check(participants, layout)
    assert "\n" not in str(error.value)


def test_allows_what_it_can_bear(layout) -> None:
    create(malicious=4).check(9, layout)
    create(malicious=0).check(1, layout)
    create().check(3, layout)

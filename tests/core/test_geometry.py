"""Products and distances: exact in float64, whatever the rows are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tffl.core.geometry import products, squared_distances
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates


def updates(rows: np.ndarray, frozen: int = 0) -> Updates:
    n, d = rows.shape
    entries = (Entry("a/mean", (frozen,), False), Entry("a/kernel", (d - frozen,), True))
    return Updates(
        round=1,
        client_ids=np.arange(n),
        sample_counts=np.ones(n, np.int64),
        start=np.zeros(d, np.float32),
        matrix=rows.astype(np.float32),
        layout=WeightLayout(entries if frozen else entries[1:]),
    )


def naive(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32).astype(np.float64)
    return np.array([[((x - y) ** 2).sum() for y in rows] for x in rows])


def test_by_hand() -> None:
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert products(updates(rows)).tolist() == [[0, 0, 0], [0, 25, 4], [0, 4, 1]]
    np.testing.assert_allclose(
        squared_distances(updates(rows)), [[0, 25, 1], [25, 0, 18], [1, 18, 0]], rtol=1e-14
    )


@pytest.mark.parametrize("d", [1, 7, 4096, 9001])
def test_is_the_sum_of_squares_over_many_blocks(d: int) -> None:
    rows = np.random.default_rng(0).normal(size=(9, d))
    distances = squared_distances(updates(rows))
    np.testing.assert_allclose(distances, naive(rows), rtol=1e-12)
    np.testing.assert_array_equal(distances, distances.T)
    assert not np.diag(distances).any()


def test_close_rows_far_from_the_origin_keep_their_digits() -> None:
    rows = 1 + 1e-6 * np.random.default_rng(0).normal(size=(8, 5000))
    np.testing.assert_allclose(squared_distances(updates(rows)), naive(rows), rtol=1e-12)


@pytest.mark.parametrize("huge", [1, 3])
def test_huge_rows_do_not_drown_the_others(huge: int) -> None:
    rows = 1e-3 * np.random.default_rng(0).normal(size=(8, 5000))
    rows[:huge] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distances = squared_distances(updates(rows))
    np.testing.assert_allclose(distances[huge:, huge:], naive(rows[huge:]), rtol=1e-12)
    np.testing.assert_allclose(distances[0, huge:], 5000 * float(np.float32(1e30)) ** 2, rtol=1e-6)


def test_one_huge_coordinate_does_not_drown_the_others() -> None:
    rows = 1e-3 * np.random.default_rng(0).normal(size=(8, 9000))
    rows[0, 8500] = 1e30
    np.testing.assert_allclose(
        squared_distances(updates(rows))[1:, 1:], naive(rows[1:]), rtol=1e-12
    )


@pytest.mark.parametrize("n", [2, 10, 37])
def test_identical_rows_are_at_distance_zero(n: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n, 20_000))
    rows[n // 2] = rows[n - 1] = rows[0]
    same = [0, n // 2, n - 1]
    distances = squared_distances(updates(rows))
    assert not distances[np.ix_(same, same)].any()
    assert np.count_nonzero(distances) == n * n - n - 6 or n == 2


def test_only_trainable_columns_count() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 30))
    np.testing.assert_allclose(
        squared_distances(updates(rows, frozen=10)), naive(rows[:, 10:]), rtol=1e-12
    )


def test_bits_do_not_depend_on_the_threads_of_blas() -> None:
    round = updates(np.random.default_rng(0).normal(size=(40, 30_000)))
    with threadpool_limits(2, user_api="blas"):
        one = squared_distances(round)
    with threadpool_limits(1, user_api="blas"):
        np.testing.assert_array_equal(squared_distances(round), one)


def test_selected_and_mixed_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 50))
    chosen = np.array([4, 1, 2])
    np.testing.assert_allclose(
        squared_distances(updates(rows).select(chosen)), naive(rows[chosen]), rtol=1e-12
    )
    mixing = np.array([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]])
    mixed = updates(rows).mixed(mixing, np.arange(2), np.ones(2, np.int64))
    np.testing.assert_allclose(squared_distances(mixed), naive(mixing @ rows), rtol=1e-5)

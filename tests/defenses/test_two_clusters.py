"""Two clusters: brute force over all partitions, scale, equal rows, and order."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tffl.defenses.parts.two_clusters import distances_to_means, two_clusters


def error(rows: np.ndarray, other: np.ndarray) -> float:
    parts = [rows[other], rows[~other]]
    return sum(float(((part - part.mean(axis=0)) ** 2).sum()) for part in parts if len(part))


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_best_of_all_partitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(9, 3)) + 3 * np.outer(rng.integers(0, 2, 9), rng.normal(size=3))
    masks = [np.array([False, *rest]) for rest in product([False, True], repeat=8)]
    best = min(error(rows, mask) for mask in masks)
    assert error(rows, two_clusters(rows @ rows.T)) <= 1.02 * best


def test_order_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(12, 6))
    rows[4:9] += 2
    other = two_clusters(rows @ rows.T)
    order = rng.permutation(12)
    moved = two_clusters(rows[order] @ rows[order].T)
    np.testing.assert_array_equal(moved, other[order] ^ other[order][0])
    for scale in (1e-30, 1e30):
        np.testing.assert_array_equal(two_clusters((scale * rows) @ (scale * rows).T), other)


def test_one_far_row_is_a_cluster_and_equal_rows_are_one() -> None:
    rows = np.array([[1.0, 2.0], [1.5, 2.0], [1e30, 0.0], [1.0, 2.5]])
    assert two_clusters(rows @ rows.T).tolist() == [False, False, True, False]
    for n in (1, 2, 5):
        assert not two_clusters(np.full((n, n), 7.0)).any()
        assert not two_clusters(np.zeros((n, n))).any()


def test_distances_to_means_are_those_of_the_rows() -> None:
    rows = np.random.default_rng(5).normal(size=(6, 4))
    members = np.array([True, False, True, True, False, False])
    expected = ((rows - rows[members].mean(axis=0)) ** 2).sum(axis=1)
    np.testing.assert_allclose(distances_to_means(rows @ rows.T, members), expected, rtol=1e-9)

"""Trimming: ties against every order they could be broken in, blocks against plain NumPy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.parts.order import WIDTH, ranked, trimmed, trims

WIDE = WeightLayout(
    (
        Entry("a/kernel", (WIDTH + 100,), True),
        Entry("a/moving_mean", (30,), False),  # in the middle of a block
        Entry("b/kernel", (WIDTH,), True),
    )
)
few_values = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 3)),
    elements=st.integers(-1, 2).map(float),
)


def round_of(matrix: np.ndarray, layout: WeightLayout) -> Updates:
    n = len(matrix)
    start = np.zeros(layout.size, np.float32)
    return Updates(1, np.arange(n), np.ones(n, np.int64), start, matrix, layout)


def expected_trims(rows: np.ndarray, count: int) -> np.ndarray:
    """The mean over all orders of the clients of how often a stable sort trims each."""
    n, total = len(rows), np.zeros(len(rows))
    orders = list(permutations(range(n)))
    for order in orders:
        ranks = np.argsort(rows[list(order)], axis=0, kind="stable").argsort(axis=0)
        hit = ((ranks < count) | (ranks >= n - count)).sum(axis=1)
        total[list(order)] += hit
    return total / len(orders)


@settings(deadline=None, max_examples=60)
@given(rows=few_values, data=st.data())
def test_ties_count_by_chance(rows: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, (len(rows) - 1) // 2))
    result = trims(rows, ranked(rows), count)
    np.testing.assert_allclose(result, expected_trims(rows, count), atol=1e-12)
    assert result.sum() == pytest.approx(2 * count * rows.shape[1])


@pytest.mark.parametrize(("n", "count"), [(1, 0), (2, 0), (7, 0), (7, 2), (8, 3), (9, 4)])
def test_blocks_are_the_whole(n: int, count: int) -> None:
    rng = np.random.default_rng(n)
    matrix = rng.normal(size=(n, WIDE.size)).astype(np.float32)
    matrix[:, ::3] = np.round(matrix[:, ::3])  # with ties
    before = matrix.copy()
    mean, shares = trimmed(round_of(matrix, WIDE), count)
    kept = np.sort(matrix.astype(np.float64), axis=0)[count : n - count]
    np.testing.assert_allclose(mean, kept.mean(axis=0), rtol=1e-6, atol=1e-7)
    assert mean.dtype == np.float32
    trainable = matrix[:, WIDE.trainable]
    np.testing.assert_allclose(
        shares, trims(trainable, ranked(trainable), count) / trainable.shape[1], rtol=1e-12
    )
    np.testing.assert_array_equal(matrix, before)


def test_selected_and_mixed_rows() -> None:
    rng = np.random.default_rng(0)
    updates = round_of(rng.normal(size=(6, WIDE.size)).astype(np.float32), WIDE)
    part = updates.select(np.array([0, 2, 3, 5])).mixed(rng.random((4, 4)))
    mean, _ = trimmed(part, 1)
    np.testing.assert_allclose(mean, np.median(part.deltas, axis=0), rtol=1e-5, atol=1e-6)


def test_bits_do_not_depend_on_the_cores(monkeypatch) -> None:
    updates = round_of(np.random.default_rng(0).normal(size=(9, WIDE.size)).astype("f4"), WIDE)
    results = []
    for cores in (1, 5):
        monkeypatch.setattr("tffl.core.process.cores", lambda cores=cores: cores)
        results.append(trimmed(updates, 2))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)

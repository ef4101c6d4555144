"""Geometric median: against plain Weiszfeld passes and a general minimizer, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.geometric_median import GeometricMedian

from .conftest import LAYOUT

TRAINABLE = LAYOUT.trainable
properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.just(LAYOUT.size)),
    elements=st.integers(-64, 64).map(lambda i: i / 8),  # exact in float32, also when shifted
)


def create(**options: object) -> GeometricMedian:
    return defenses.create("geometric-median", options)


def make(matrix: object, counts: object = None, layout: WeightLayout = LAYOUT) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.ones(n, np.int64) if counts is None else np.asarray(counts)
    return Updates(1, np.arange(n), counts, np.zeros(layout.size, np.float32), matrix, layout)


def judge(defense: GeometricMedian, updates: Updates, server: Server) -> Verdict:
    verdict, state = defense.judge(updates, server, defense.init(server))
    assert state == {}
    return verdict


def rows(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, LAYOUT.size)).astype(np.float32)


def weiszfeld(
    matrix: np.ndarray, shares: np.ndarray, passes: int, smoothing: float = 1e-6
) -> np.ndarray:
    """The weights after so many plain passes over the rows themselves."""
    points, weights = matrix.astype(float)[:, TRAINABLE], shares
    for _ in range(passes):
        z = sum(weight * point for weight, point in zip(weights, points, strict=True))
        distances = np.array([np.linalg.norm(z - point) for point in points])
        weights = shares / np.maximum(smoothing, distances)
        weights = weights / weights.sum()
    return weights


def objective(z: np.ndarray, matrix: np.ndarray, shares: np.ndarray) -> float:
    return float(shares @ np.linalg.norm(matrix.astype(float)[:, TRAINABLE] - z, axis=1))


def test_the_middle_of_three_on_a_line_by_hand(server) -> None:
    matrix = np.zeros((3, LAYOUT.size))
    matrix[:, -1] = [-1, 0, 100]
    verdict = judge(create(), make(matrix), server)
    assert verdict.aggregate[-1] == pytest.approx(0, abs=1e-5)
    assert verdict.weights[1] == pytest.approx(1, abs=1e-5)
    assert verdict.accepted.all()
    # The weights are as 1/distance: 1, 1/ν and 1/100.
    np.testing.assert_allclose(verdict.weights[0] / verdict.weights[2], 100, rtol=1e-4)
    np.testing.assert_allclose(verdict.scores, 1 / 3 / verdict.weights, rtol=1e-9)


def test_a_square_with_a_fifth_point_inside_by_hand(server) -> None:
    matrix = np.zeros((5, LAYOUT.size))
    matrix[:, -2:] = [[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0]]
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_allclose(verdict.aggregate, 0, atol=1e-6)
    np.testing.assert_allclose(verdict.weights[:4], verdict.weights[0], rtol=1e-6)


@pytest.mark.parametrize("passes", [1, 3, 10])
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("smoothing", [1e-6, 3.0])
def test_agrees_with_plain_passes(server, passes: int, weighting: str, smoothing: float) -> None:
    matrix, counts = rows(passes, 9), np.arange(1, 10)
    matrix[4] *= 50
    shares = counts / counts.sum() if weighting == "samples" else np.full(9, 1 / 9)
    defense = create(iterations=passes, weighting=weighting, smoothing=smoothing)
    verdict = judge(defense, make(matrix, counts), server)
    weights = weiszfeld(matrix, shares, passes, smoothing)
    np.testing.assert_allclose(verdict.weights, weights, rtol=1e-9)
    np.testing.assert_allclose(verdict.aggregate, weights @ matrix, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(verdict.scores, shares / weights, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_is_what_very_many_plain_passes_find(server, n: int) -> None:
    matrix, counts = rows(n, n), np.arange(3, n + 3)
    verdict = judge(create(), make(matrix, counts), server)
    weights = weiszfeld(matrix, counts / counts.sum(), 5_000)
    np.testing.assert_allclose(verdict.aggregate, weights @ matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_no_minimizer_finds_a_better_point(server, seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    matrix, counts = rows(seed, 7), np.random.default_rng(seed).integers(1, 20, 7)
    matrix[0] *= 10
    shares = counts / counts.sum()
    found = judge(create(), make(matrix, counts), server).aggregate[TRAINABLE]
    best = optimize.minimize(
        objective, np.zeros(TRAINABLE.sum()), (matrix, shares), options={"gtol": 1e-9}
    )
    value = objective(found, matrix, shares)
    assert value <= best.fun + 1e-6
    np.testing.assert_allclose(found, best.x, atol=1e-3)


@pytest.mark.parametrize("size", [1e30, -1e30, 1e6])
def test_huge_rows_are_put_back(server, size: float) -> None:
    matrix = rows(3, 10)
    matrix[[2, 6]] = size
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(create(malicious=2), make(matrix), server)
    others = np.delete(matrix, [2, 6], axis=0)
    # Two pull with a force of 1 each, wherever they are: as from far away in that direction.
    near = others.copy()
    pulled = np.concatenate([near, np.full((2, LAYOUT.size), np.sign(size) * 1e4, np.float32)])
    expected = weiszfeld(pulled, np.full(10, 0.1), 3000) @ pulled
    np.testing.assert_allclose(verdict.aggregate, expected, atol=5e-3)
    assert np.isfinite(verdict.scores).all()
    assert verdict.flagged.nonzero()[0].tolist() == [2, 6]


def test_huge_rows_that_cancel_leave_the_others_alone(server) -> None:
    matrix = rows(4, 7)
    matrix[1], matrix[5] = 1e30, -1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(create(malicious=2), make(matrix), server)
    others = np.delete(matrix, [1, 5], axis=0)
    expected = weiszfeld(others, np.full(5, 0.2), 3000) @ others
    np.testing.assert_allclose(verdict.aggregate, expected, rtol=1e-4, atol=1e-5)
    assert verdict.flagged.nonzero()[0].tolist() == [1, 5]


def test_three_passes_are_not_enough_for_a_huge_row(server) -> None:
    matrix = rows(3, 10)
    matrix[2] = 1e30
    assert np.abs(judge(create(iterations=3), make(matrix), server).aggregate).min() > 1e20
    assert np.abs(judge(create(), make(matrix), server).aggregate).max() < 5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_identical_rows_that_are_a_majority_win_and_are_alike(server, scale: float) -> None:
    matrix = rows(5, 9) * np.float32(scale)
    matrix[[1, 3, 4, 6, 8]] = matrix[1]
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_allclose(verdict.aggregate, matrix[1], rtol=1e-5, atol=1e-5)
    expected = weiszfeld(matrix, np.full(9, 1 / 9), 3000)
    np.testing.assert_allclose(verdict.weights, expected, rtol=1e-3)


def test_a_client_that_claims_most_samples_is_the_median_unless_uniform(server) -> None:
    matrix, counts = rows(6, 6), [1, 1, 1000, 1, 1, 1]
    trusting = judge(create(), make(matrix, counts), server)
    np.testing.assert_allclose(trusting.aggregate, matrix[2], atol=1e-5)
    uniform = judge(create(weighting="uniform"), make(matrix, counts), server)
    np.testing.assert_array_equal(
        uniform.aggregate, judge(create(), make(matrix), server).aggregate
    )


def test_clients_without_samples(server) -> None:
    matrix = rows(7, 5)
    some = judge(create(), make(matrix, [0, 1, 1, 1, 0]), server)
    alone = judge(create(), make(matrix[1:4]), server)
    np.testing.assert_allclose(some.aggregate, alone.aggregate, rtol=1e-5, atol=1e-6)
    assert some.weights[0] == some.weights[4] == 0
    assert np.isfinite(some.scores).all()
    nobody = judge(create(), make(matrix, [0] * 5), server)
    assert not nobody.aggregate.any()
    assert not nobody.weights.any()


def test_rows_that_are_not_finite_are_left_out(server) -> None:
    matrix = rows(8, 6)
    matrix[0, 4] = np.inf
    verdict = judge(create(), make(matrix), server)
    np.testing.assert_array_equal(
        verdict.aggregate, judge(create(), make(matrix[1:]), server).aggregate
    )
    assert verdict.weights[0] == 0
    assert verdict.scores[0] == np.inf


def test_frozen_columns_get_the_same_weights_and_do_not_count(server) -> None:
    matrix = rows(9, 5)
    before = judge(create(), make(matrix), server)
    matrix[:, ~TRAINABLE] *= 1000
    after = judge(create(), make(matrix), server)
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_allclose(
        after.aggregate[~TRAINABLE], 1000 * before.aggregate[~TRAINABLE], rtol=1e-5
    )


def test_several_blocks_of_columns(server) -> None:
    layout = WeightLayout(
        (
            Entry("a/kernel", (50_000,), True),
            Entry("a/moving_mean", (7,), False),
            Entry("b/kernel", (20_000,), True),
        )
    )
    matrix = np.random.default_rng(0).normal(size=(6, layout.size)).astype(np.float32)
    matrix *= np.arange(1, 7, dtype=np.float32)[:, None]
    verdict = judge(create(), make(matrix, layout=layout), server)
    points, z = matrix[:, layout.trainable].astype(float), verdict.aggregate[layout.trainable]
    # At the minimum, the unit vectors to all points cancel.
    units = (points - z) / np.linalg.norm(points - z, axis=1)[:, None]
    assert np.linalg.norm(units.sum(axis=0)) < 1e-4


@properties
@given(matrix=matrices, seed=st.integers(0, 9))
def test_order_does_not_matter(server, matrix, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(matrix))
    counts = order + 1
    defense = create(iterations=20)
    one = judge(defense, make(matrix, counts), server)
    other = judge(defense, make(matrix[order], counts[order]), server)
    np.testing.assert_allclose(other.aggregate, one.aggregate, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other.weights, one.weights[order], rtol=1e-5, atol=1e-9)


@properties
@given(matrix=matrices, shift=st.integers(-8, 8))
def test_follows_a_common_shift(server, matrix, shift: int) -> None:
    defense = create(iterations=20)
    one = judge(defense, make(matrix), server)
    other = judge(defense, make(matrix + np.float32(shift)), server)
    np.testing.assert_allclose(other.aggregate, one.aggregate + shift, rtol=1e-4, atol=1e-4)


@properties
@given(matrix=matrices)
def test_weights_are_shares_and_never_worse_than_the_mean(server, matrix) -> None:
    verdict = judge(create(), make(matrix), server)
    assert (verdict.weights > 0).all()
    assert verdict.weights.sum() == pytest.approx(1)
    shares = np.full(len(matrix), 1 / len(matrix))
    mean = matrix[:, TRAINABLE].mean(axis=0)
    value = objective(verdict.aggregate[TRAINABLE], matrix, shares)
    assert value <= objective(mean, matrix, shares) + 1e-5


@pytest.mark.parametrize("n", [1, 2, 5])
def test_identical_rows_are_averaged_as_in_fedavg(server, n: int) -> None:
    counts = np.arange(1, n + 1)
    verdict = judge(create(), make([rows(1, 1)[0]] * n, counts), server)
    np.testing.assert_allclose(verdict.weights, counts / counts.sum(), rtol=1e-12)
    np.testing.assert_allclose(verdict.scores, 1, rtol=1e-9)
    assert not verdict.flagged.any()


@pytest.mark.parametrize(
    ("option", "value"),
    [("smoothing", 0), ("smoothing", "nan"), ("iterations", 0), ("weighting", "equal")],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option}\b.* is not allowed"):
        create(**{option: value})


def test_refuses_a_majority(layout) -> None:
    with pytest.raises(UsageError, match=r"geometric-median needs n > 2f: .* f = 4 is too many"):
        create(malicious=4).check(8, layout)
    create(malicious=3).check(8, layout)

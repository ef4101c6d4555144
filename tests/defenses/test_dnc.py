"""DnC: hand-computed rounds, a reference by SVD, properties and refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.core import seeds
from tffl.core.errors import UsageError
from tffl.defenses import defenses
from tffl.defenses.dnc import DnC, projections

from .byzantine import FROZEN, as_updates, cloud, judge

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)


def create(**options: object) -> DnC:
    return defenses.create("dnc", options)


def by_svd(rows: np.ndarray) -> np.ndarray:
    centered = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    return np.abs(centered @ np.linalg.svd(centered, full_matrices=False)[2][0])


def test_by_hand(server) -> None:
    # All differences lie along (3, 4): the mean is 2 units along it, so lengths are 10, 5, 0, 15.
    rows = np.outer([0.0, 1.0, 2.0, 5.0], [3.0, 4.0])
    np.testing.assert_allclose(projections(rows), [10, 5, 0, 15], atol=1e-12)
    verdict = judge(create(malicious=1), as_updates(rows, counts=[1, 1, 2, 9]), server)
    assert verdict.accepted.tolist() == [True, True, True, False]
    np.testing.assert_allclose(verdict.scores, [1, 0.5, 0, 1.5], rtol=1e-5, atol=1e-12)
    assert verdict.threshold == 1
    np.testing.assert_allclose(verdict.weights, [0.25, 0.25, 0.5, 0])
    assert verdict.reasons[3] == "stands out 1.5 times as much as what is kept"


def test_told_nothing_by_hand(server) -> None:
    # Lengths 3, 1, 1, 2, 7 around the mean 3: median 2, MAD 1.
    rows = np.array([[0.0], [2.0], [4.0], [1.0], [8.0]]) * [[1.0, 0.0]]
    rows[:, 1] = 0
    verdict = judge(create(k=1), as_updates(rows), server)
    lengths = np.abs(rows[:, 0] - 3)
    np.testing.assert_allclose(verdict.scores, lengths / (2 + 1.4826), rtol=1e-5)
    assert verdict.accepted.tolist() == [True] * 4 + [False]


@properties
@given(n=st.integers(2, 12), d=st.sampled_from([1, 3, 40]), seed=st.integers(0, 99))
def test_projections_agree_with_svd(n: int, d: int, seed: int) -> None:
    rows = cloud(n, d, seed, attackers=1, far=5)
    np.testing.assert_allclose(projections(rows), by_svd(rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("iterations", "c"), [(1, 1.0), (3, 1.0), (2, 0.5), (1, 1.5)])
def test_agrees_with_the_algorithm_step_by_step(server, iterations: int, c: float) -> None:
    rows = cloud(15, 60, attackers=2, far=0.5)
    options = {"iterations": iterations, "c": c, "coordinates": 20, "malicious": 2}
    verdict = judge(create(**options), as_updates(rows, round=4), server)
    draw = seeds.generator(server.seed, "dnc", 4)
    good = set(range(15))
    for _ in range(iterations):
        columns = draw.choice(np.arange(FROZEN, 62), 20, replace=False, shuffle=False) - FROZEN
        order = np.argsort(by_svd(rows[:, columns]))
        good &= set(order[: 15 - int(c * 2)].tolist())
    assert set(np.flatnonzero(verdict.accepted).tolist()) == good
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], rows[sorted(good)].mean(axis=0), 1e-4)


def test_finds_attackers_told_and_untold(server) -> None:
    round = as_updates(cloud(20, 300, attackers=4, far=2))
    for options in ({"malicious": 4}, {"malicious": 0.2}, {}, {"iterations": 3, "malicious": 4}):
        verdict = judge(create(coordinates=100, **options), round, server)
        assert verdict.convicted[16:].all()
    assert judge(create(malicious=4), round, server).convicted.sum() == 4


def test_draws_columns_by_seed_and_round(server) -> None:
    rows = cloud(10, 200)
    defense = create(coordinates=5)
    one, again = (judge(defense, as_updates(rows, round=3), server).scores for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (judge(defense, as_updates(rows, round=4), server).scores != one).any()


def test_only_trainable_columns_are_drawn(server) -> None:
    round = as_updates(cloud(10, 3))
    round.matrix[0, :FROZEN] = 1e6
    verdict = judge(create(malicious=1), round, server)
    np.testing.assert_allclose(
        verdict.scores, (p := projections(round.matrix[:, FROZEN:])) / np.sort(p)[-2], rtol=1e-5
    )


@properties
@given(seed=st.integers(0, 99), f=st.integers(0, 4), shift=st.integers(-4, 4))
def test_order_shift_and_weights(server, seed: int, f: int, shift: int) -> None:
    rows = np.round(cloud(9, 6, seed, attackers=f) * 64) / 64
    order = np.random.default_rng(seed).permutation(9)
    one = judge(create(malicious=f), as_updates(rows), server)
    two = judge(create(malicious=f), as_updates(rows[order]), server)
    np.testing.assert_allclose(two.scores, one.scores[order], rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(two.accepted, one.accepted[order])
    moved = judge(create(malicious=f), as_updates(rows + np.float32(shift)), server)
    np.testing.assert_allclose(moved.scores, one.scores, rtol=1e-6, atol=1e-9)
    assert one.weights.sum() == pytest.approx(1)
    assert one.convicted.sum() == f


def test_identical_rows_and_zero_spread(server) -> None:
    for options in ({}, {"malicious": 2}):
        verdict = judge(create(**options), as_updates([[0.1, 0.2]] * 6), server)
        assert verdict.accepted.all()
        assert verdict.scores.tolist() == [0] * 6
    # Six equal rows and two opposite ones: the six lie exactly in the middle.
    rows = np.zeros((8, 3))
    rows[6:] = [[1, 0, 0], [-1, 0, 0]]
    verdict = judge(create(malicious=2), as_updates(rows), server)
    assert verdict.accepted.tolist() == [True] * 6 + [False] * 2
    assert np.isfinite(verdict.scores).all()


def test_a_huge_row_is_removed(server) -> None:
    rows = cloud(10, 50)
    rows[4] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({}, {"malicious": 1}):
            verdict = judge(create(**options), as_updates(rows), server)
            assert np.flatnonzero(verdict.convicted).tolist() == [4]
            assert np.isfinite(verdict.scores).all()


def test_rows_that_are_not_finite_count_as_found(server) -> None:
    rows = cloud(9, 20, attackers=1)
    rows[2, 0] = np.nan
    verdict = judge(create(malicious=2), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [2, 8]
    assert verdict.scores[2] == np.inf
    nobody = judge(create(malicious=2), as_updates(rows * np.float32(np.nan)), server)
    assert np.isnan(nobody.threshold)
    assert not nobody.aggregate.any()
    alone = np.full((4, 3), np.nan)
    alone[1] = 1
    assert judge(create(malicious=1), as_updates(alone), server).accepted.sum() == 1


def test_refuses_what_cannot_work(layout) -> None:
    create(malicious=2).check(5, layout)
    create(malicious=2, iterations=4).check(9, layout)
    for options, n, message in (
        ({"malicious": 3}, 6, r"dnc needs n > 2f: with n = 6 .* at most 2"),
        ({"malicious": 2, "iterations": 5}, 10, "dnc may remove 10 of 10 participants"),
        ({"malicious": 3, "c": 4}, 10, "dnc may remove 12 of 10 participants"),
    ):
        with pytest.raises(UsageError, match=message):
            create(**options).check(n, layout)
    for options in ({"iterations": 0}, {"coordinates": 0}, {"c": 0}, {"c": "nan"}):
        with pytest.raises(UsageError, match=r"^defense\."):
            create(**options)

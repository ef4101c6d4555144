"""Krum: hand-computed rounds, a slow reference, Flower's function, properties and refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.defenses import defenses
from tffl.defenses.krum import Krum, krum_scores, winner

from .byzantine import FROZEN, as_updates, cloud, judge, naive_scores

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
LINE = [[0.0], [1.0], [3.0], [4.5], [50.0]]


def create(**options: object) -> Krum:
    return defenses.create("krum", options)


def test_by_hand(server) -> None:
    # n = 5, f = 1: two neighbors. 1 is 1 from 0 and 4 from 3; 3 is 4 from 1 and 2.25 from 4.5.
    verdict = judge(create(malicious=1), as_updates(LINE, counts=[9, 1, 5, 1, 1]), server)
    expected = [1 + 9, 1 + 4, 4 + 2.25, 2.25 + 12.25, 45.5**2 + 47**2]
    np.testing.assert_allclose(verdict.scores, expected, rtol=1e-6)
    assert verdict.weights.tolist() == [0, 1, 0, 0, 0]
    assert verdict.accepted.tolist() == [False, True, False, False, False]
    assert verdict.convicted.tolist() == verdict.flagged.tolist() == [False] * 4 + [True]
    assert verdict.aggregate.tolist() == [1, 1, 1]  # client 1's statistics, and its weight
    assert verdict.aggregate.dtype == np.float32
    assert verdict.reasons[:4] == ("not selected", "", "not selected", "not selected")
    assert verdict.reasons[4].startswith("distrusted: score ")


def test_told_nothing_bears_the_most_and_suspects_outliers(server) -> None:
    # n = 5 bears f = 1, so scores are as above: median 10, deviations 0, 5, 3.75, 4.5, thousands.
    verdict = judge(create(), as_updates(LINE), server)
    assert verdict.weights.tolist() == [0, 1, 0, 0, 0]
    assert verdict.threshold == pytest.approx(10 + 3.5 * 1.4826 * 4.5, rel=1e-5)
    assert verdict.convicted.tolist() == [False] * 4 + [True]


def test_a_fraction_is_of_the_participants(server) -> None:
    rows = cloud(10, 4, attackers=3)
    one = judge(create(malicious=0.3), as_updates(rows), server)
    np.testing.assert_array_equal(
        one.scores, judge(create(malicious=3), as_updates(rows), server).scores
    )
    assert np.flatnonzero(one.convicted).tolist() == [7, 8, 9]


@properties
@given(n=st.integers(3, 12), data=st.data(), seed=st.integers(0, 99))
def test_scores_agree_with_plain_loops(server, n: int, data: st.DataObject, seed: int) -> None:
    f = data.draw(st.integers(0, (n - 3) // 2))
    rows = cloud(n, 5, seed)
    verdict = judge(create(malicious=f), as_updates(rows), server)
    scores = naive_scores(rows, f)
    np.testing.assert_allclose(verdict.scores, scores, rtol=1e-9)
    if n - f - 2 > 1:  # with one neighbor, the nearest two always tie; see below
        assert verdict.accepted.tolist() == [i == np.argmin(scores) for i in range(n)]


@properties
@given(n=st.integers(5, 15), data=st.data(), seed=st.integers(0, 99))
def test_agrees_with_flower(server, n: int, data: st.DataObject, seed: int) -> None:
    aggregate = pytest.importorskip("flwr.server.strategy.aggregate")
    f = data.draw(st.integers(0, (n - 3) // 2))
    rows = cloud(n, 6, seed)
    theirs = aggregate.aggregate_krum([([row], 1) for row in rows], f, to_keep=0)[0]
    ours = judge(create(malicious=f), as_updates(rows), server).aggregate[FROZEN:]
    if n - f - 2 > 1:
        np.testing.assert_array_equal(ours, theirs)


@properties
@given(seed=st.integers(0, 99), shift=st.integers(-4, 4), scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_order_shift_and_scale(server, seed: int, shift: int, scale: float) -> None:
    rows = np.round(cloud(9, 6, seed) * 64) / 64  # exact in float32, also when shifted
    order = np.random.default_rng(seed).permutation(9)
    one = judge(create(malicious=2), as_updates(rows), server)
    two = judge(create(malicious=2), as_updates(rows[order]), server)
    np.testing.assert_allclose(two.scores, one.scores[order], rtol=1e-12)
    np.testing.assert_array_equal(two.aggregate[FROZEN:], one.aggregate[FROZEN:])
    moved = judge(create(malicious=2), as_updates(rows * scale + shift), server)
    np.testing.assert_allclose(moved.scores, one.scores * scale**2, rtol=1e-9)
    np.testing.assert_array_equal(moved.accepted, one.accepted)


def test_identical_rows_tie_and_nobody_is_suspected(server) -> None:
    for options in ({}, {"malicious": 2}):
        verdict = judge(create(**options), as_updates([[0.1, 0.2, 0.3]] * 8), server)
        assert verdict.accepted.tolist() == [True] + [False] * 7
        assert verdict.scores.tolist() == [0] * 8
        assert not verdict.convicted.any()


def test_of_the_nearest_two_the_one_nearer_to_the_rest_wins(server) -> None:
    # n = 3, f = 0: one neighbor, so that 4 and 5 always tie; 4 is nearer to 0.
    for rows in ([[0], [4], [5]], [[5], [0], [4]], [[4], [5], [0]]):
        verdict = judge(create(malicious=0), as_updates(rows), server)
        assert verdict.aggregate[FROZEN:].tolist() == [4]


def test_what_ties_altogether_goes_to_the_first() -> None:
    square = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]]) * np.array([[1 + 1e-9], [1], [1], [1]])
    distances = ((square[:, None] - square) ** 2).sum(axis=2)
    assert winner(distances, 0) == 0
    assert winner(np.zeros((1, 1)), 0) == 0
    assert winner(np.array([[0.0, 1.0], [1.0, 0.0]]), 0) == 0


def test_a_huge_row_hides_nobody(server) -> None:
    rows = cloud(10, 50, attackers=2)
    rows[9] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(create(malicious=2), as_updates(rows), server)
    np.testing.assert_allclose(verdict.scores[:9], naive_scores(rows, 2)[:9], rtol=1e-9)
    assert np.isfinite(verdict.scores).all()
    assert np.flatnonzero(verdict.convicted).tolist() == [8, 9]
    assert verdict.accepted[:8].sum() == 1


def test_rows_that_are_not_finite_are_convicted(server) -> None:
    rows = cloud(10, 5)
    rows[3, 1] = np.nan
    verdict = judge(create(malicious=1), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [3]
    assert verdict.scores[3] == np.inf
    assert verdict.accepted.sum() == 1
    assert np.isfinite(verdict.aggregate).all()


@pytest.mark.parametrize("finite", [0, 1, 2])
def test_hardly_any_finite_row(server, finite: int) -> None:
    rows = cloud(7, 3)
    rows[finite:] = np.nan
    verdict = judge(create(), as_updates(rows), server)
    assert verdict.accepted.tolist() == [finite > 0] + [False] * 6
    np.testing.assert_array_equal(
        verdict.aggregate[FROZEN:], rows[0] if finite else np.zeros(3, np.float32)
    )


def test_scores_of_a_single_row_are_zero() -> None:
    assert krum_scores(np.zeros((1, 1)), 0).tolist() == [0]


def test_refuses_what_krum_cannot_bear(layout) -> None:
    create(malicious=1).check(5, layout)
    create().check(3, layout)
    with pytest.raises(UsageError, match=r"krum needs n > 2f \+ 2: with n = 6 .* at most 1"):
        create(malicious=2).check(6, layout)
    with pytest.raises(UsageError, match="2 participants a round are too few"):
        create().check(2, layout)


def test_says_what_it_is_told() -> None:
    assert create().declared_knowledge() == ()
    assert create(malicious=2).declared_knowledge() == ("told malicious = 2",)

"""Bulyan: hand-computed rounds, a slow reference, Flower's function, properties and refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.defenses import defenses
from tffl.defenses.bulyan import Bulyan, middle_mean, select

from .byzantine import FROZEN, as_updates, cloud, judge, naive_scores

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)


def create(**options: object) -> Bulyan:
    return defenses.create("bulyan", options)


def naive(rows: np.ndarray, f: int) -> tuple[list[int], list[float]]:
    """Returns the selected rows and the aggregate, in plain loops."""
    rest, selected = list(range(len(rows))), []
    for _ in range(len(rows) - 2 * f):
        # One neighbor always makes a tie, and then the next nearest one decides.
        scores = [round(score, 6) for score in naive_scores(rows[rest], f)]
        one_more = naive_scores(rows[rest], f, more=1)
        selected.append(rest.pop(min(range(len(rest)), key=lambda i: (scores[i], one_more[i]))))
    aggregate = []
    for column in rows[selected].astype(float).T:
        median = float(np.median(column))
        closest = sorted(column.tolist(), key=lambda value: abs(value - median))
        aggregate.append(float(np.mean(closest[: len(rows) - 4 * f])))
    return sorted(selected), aggregate


def test_by_hand(server) -> None:
    # n = 7, f = 1: θ = 5, β = 3. Krum leaves out 100 and −9; the median of the others is 0, and
    # the three closest to it are −1, 0 and 1.5.
    rows = [[-2.0], [-1.0], [0.0], [1.5], [4.0], [-9.0], [100.0]]
    verdict = judge(create(malicious=1), as_updates(rows), server)
    assert verdict.accepted.tolist() == [True] * 5 + [False] * 2
    np.testing.assert_allclose(verdict.weights, [0.2] * 5 + [0] * 2)
    assert verdict.aggregate[FROZEN:] == pytest.approx([(-1 + 0 + 1.5) / 3])
    assert verdict.aggregate[:FROZEN] == pytest.approx([2, 2])  # 0 … 4, closest to 2: 1, 2, 3
    assert np.flatnonzero(verdict.convicted).tolist() == [6]
    assert verdict.reasons[5] == "not selected"


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        ([0, 4, 5, 7, 30], 3, 16 / 3),
        ([0, 4, 5, 7, 30], 5, 46 / 5),
        ([0, 4, 5, 7, 30], 1, 5),
        ([1, 2, 4, 5], 2, 3),  # an even number: the median is 3, between the two
        ([0, 5, 6, 9], 2, 5.5),
        ([-2, 0, 2], 2, -1),  # equally far: the value below stays
        ([-1e30, 1, 2, 3, 1e30], 3, 2),
        ([7], 1, 7),
    ],
)
def test_middle_mean_by_hand(values: list[float], count: int, expected: float) -> None:
    got = middle_mean(np.array([values], dtype=float), count)
    assert got == pytest.approx([expected])


@properties
@given(f=st.integers(0, 3), extra=st.integers(0, 4), seed=st.integers(0, 99))
def test_agrees_with_plain_loops(server, f: int, extra: int, seed: int) -> None:
    n = 4 * f + 3 + extra
    rows = cloud(n, 5, seed, attackers=min(f, 1), far=2)
    verdict = judge(create(malicious=f), as_updates(rows), server)
    selected, aggregate = naive(rows, f)
    assert np.flatnonzero(verdict.accepted).tolist() == selected
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], aggregate, atol=1e-6)
    np.testing.assert_allclose(verdict.scores, naive_scores(rows, f), rtol=1e-9)


@properties
@given(f=st.sampled_from([0, 3, 4]), extra=st.integers(0, 4), seed=st.integers(0, 99))
def test_agrees_with_flower(server, f: int, extra: int, seed: int) -> None:
    # With f = 1 or 2 the last rows have one neighbor: they tie, and Flower takes the first.
    aggregate = pytest.importorskip("flwr.server.strategy.aggregate")
    rows = cloud(4 * f + 3 + extra, 6, seed, attackers=f, far=3)
    results = [([row.astype(np.float64)], 1) for row in rows]
    theirs = aggregate.aggregate_bulyan(results, f, aggregate.aggregate_krum, to_keep=0)[0]
    ours = judge(create(malicious=f), as_updates(rows), server)
    np.testing.assert_allclose(ours.aggregate[FROZEN:], theirs, atol=1e-6)


def test_no_attacker_expected_is_the_plain_mean(server) -> None:
    round = as_updates(cloud(6, 4), counts=[1, 1, 1, 1, 1, 99])
    verdict = judge(create(malicious=0), round, server)
    np.testing.assert_allclose(verdict.aggregate, round.matrix.mean(axis=0), atol=1e-6)
    assert verdict.accepted.all()


def test_told_nothing_bears_the_most(server) -> None:
    rows = cloud(12, 5, attackers=2)  # f = 2: 8 selected
    verdict = judge(create(), as_updates(rows), server)
    assert verdict.accepted.sum() == 8
    np.testing.assert_array_equal(
        verdict.aggregate, judge(create(malicious=2), as_updates(rows), server).aggregate
    )
    assert np.flatnonzero(verdict.convicted).tolist() == [10, 11]


@properties
@given(seed=st.integers(0, 99), f=st.integers(0, 2))
def test_order_and_hull(server, seed: int, f: int) -> None:
    rows, order = cloud(13, 6, seed, attackers=f), np.random.default_rng(seed).permutation(13)
    one = judge(create(malicious=2), as_updates(rows), server)
    two = judge(create(malicious=2), as_updates(rows[order]), server)
    np.testing.assert_allclose(two.scores, one.scores[order], rtol=1e-12)
    np.testing.assert_array_equal(two.accepted, one.accepted[order])
    np.testing.assert_allclose(two.aggregate[FROZEN:], one.aggregate[FROZEN:], atol=1e-6)
    honest = rows[: 13 - f]
    inside = one.aggregate[FROZEN:]
    assert (honest.min(axis=0) <= inside).all()
    assert (inside <= honest.max(axis=0)).all()


def test_identical_rows(server) -> None:
    verdict = judge(create(malicious=1), as_updates([[0.1, 0.2]] * 9), server)
    np.testing.assert_array_equal(verdict.aggregate[FROZEN:], np.float32([0.1, 0.2]))
    assert not verdict.convicted.any()


def test_one_hidden_coordinate_is_cut(server) -> None:
    rows = 1e-3 * cloud(11, 2000)
    rows[0] = np.delete(rows, 0, axis=0).mean(axis=0)
    rows[0, 7] = 0.02  # too little to be far away, twenty times the others' spread in one place
    verdict = judge(create(malicious=2), as_updates(rows), server)
    assert verdict.accepted[0]
    assert abs(verdict.aggregate[FROZEN + 7]) < 1e-3


def test_a_huge_row_changes_nothing(server) -> None:
    rows = cloud(11, 50, attackers=2)
    rows[10] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(create(malicious=2), as_updates(rows), server)
    selected, aggregate = naive(rows, 2)
    assert np.flatnonzero(verdict.accepted).tolist() == selected
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], aggregate, atol=1e-6)
    assert np.flatnonzero(verdict.convicted).tolist() == [9, 10]


@pytest.mark.parametrize("finite", [0, 1, 2, 5, 8])
def test_rows_that_are_not_finite_are_left_out(server, finite: int) -> None:
    rows = cloud(11, 3)
    rows[finite:, 1] = np.nan
    verdict = judge(create(malicious=2), as_updates(rows), server)
    assert verdict.convicted[finite:].all()
    assert not verdict.accepted[finite:].any()
    assert np.isfinite(verdict.aggregate).all()
    assert verdict.accepted.any() == (finite > 0)


def test_selection_is_not_the_lowest_scores_at_once() -> None:
    rows = cloud(11, 3, seed=4)
    distances = ((rows[:, None].astype(float) - rows) ** 2).sum(axis=2)
    step_by_step = select(distances, malicious=2, count=7).tolist()
    at_once = sorted(np.argsort(naive_scores(rows, 2))[:7].tolist())
    assert step_by_step == naive(rows, 2)[0]
    assert step_by_step != at_once


def test_refuses_what_bulyan_cannot_bear(layout) -> None:
    create(malicious=2).check(11, layout)
    with pytest.raises(UsageError, match=r"bulyan needs n >= 4f \+ 3: with n = 10 .* at most 1"):
        create(malicious=2).check(10, layout)
    with pytest.raises(UsageError, match="2 participants a round are too few"):
        create().check(2, layout)

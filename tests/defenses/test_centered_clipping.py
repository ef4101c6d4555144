"""Centered clipping: by hand, against a loop over rounds, and what it remembers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.centered_clipping import CenteredClipping

from .conftest import LAYOUT

TRAINABLE = LAYOUT.trainable
properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.just(LAYOUT.size)),
    elements=st.floats(-100, 100, width=16),
)


def create(**options: object) -> CenteredClipping:
    return defenses.create("centered-clipping", options)


def make(matrix: object, round: int = 1) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    counts = np.arange(1, n + 1)  # not to matter
    return Updates(round, np.arange(n), counts, np.zeros(LAYOUT.size, np.float32), matrix, LAYOUT)


def judge(defense: CenteredClipping, updates: Updates, server: Server) -> Verdict:
    return defense.judge(updates, server, defense.init(server))[0]


def along_the_bias(*lengths: float) -> np.ndarray:
    matrix = np.zeros((len(lengths), LAYOUT.size))
    matrix[:, -1] = lengths
    return matrix


def naive(matrix: np.ndarray, center: np.ndarray, tau: float | None, iterations: int) -> np.ndarray:
    """The new center, in trainable columns only, client by client."""
    rows, center = matrix.astype(float)[:, TRAINABLE], center.astype(float)
    for _ in range(iterations):
        limit = np.median([np.linalg.norm(row - center) for row in rows]) if tau is None else tau
        step = np.zeros_like(center)
        for row in rows:
            distance = np.linalg.norm(row - center)
            step += (row - center) * (min(1.0, limit / distance) if distance else 1.0)
        center = center + step / len(rows)
    return center


def test_two_rounds_by_hand(server) -> None:
    defense = create(tau=2, malicious=1)
    state = defense.init(server)
    verdict, state = defense.judge(make(along_the_bias(1, 1, 10)), server, state)
    assert verdict.aggregate[-1] == pytest.approx((1 + 1 + 2) / 3)
    np.testing.assert_allclose(verdict.scores, [0.5, 0.5, 5])
    assert verdict.flagged.tolist() == [False, False, True]
    np.testing.assert_allclose(verdict.weights, 1 / 3)
    verdict, _ = defense.judge(make(along_the_bias(1, 1, 10), round=2), server, state)
    v = 4 / 3
    assert verdict.aggregate[-1] == pytest.approx(v + ((1 - v) + (1 - v) + 2) / 3)
    np.testing.assert_allclose(verdict.scores, [1 / 6, 1 / 6, (10 - v) / 2], rtol=1e-6)


def test_told_no_radius_it_takes_the_median_distance(server) -> None:
    verdict = judge(create(), make(along_the_bias(1, 2, 30)), server)
    assert verdict.aggregate[-1] == pytest.approx((1 + 2 + 2) / 3)
    np.testing.assert_allclose(verdict.scores, [0.5, 1, 15])


@pytest.mark.parametrize("tau", [None, 0.7, 5.0, 1000.0])
@pytest.mark.parametrize("iterations", [1, 3])
def test_agrees_with_a_loop_over_rounds(server, tau: float | None, iterations: int) -> None:
    rng = np.random.default_rng(1)
    defense = create(iterations=iterations, **({} if tau is None else {"tau": tau}))
    state = defense.init(server)
    center = np.zeros(TRAINABLE.sum())
    for round in range(1, 6):
        n = 4 + round % 3  # not all clients take part in every round
        matrix = rng.normal(1, 2, size=(n, LAYOUT.size)).astype(np.float32)
        verdict, state = defense.judge(make(matrix, round), server, state)
        center = naive(matrix, center, tau, iterations)
        np.testing.assert_allclose(verdict.aggregate[TRAINABLE], center, rtol=1e-5, atol=1e-6)
        frozen = matrix[:, ~TRAINABLE].mean(axis=0)
        np.testing.assert_allclose(verdict.aggregate[~TRAINABLE], frozen, rtol=1e-5, atol=1e-6)


def test_judging_changes_no_input_and_remembers_float32(server) -> None:
    defense = create(tau=1)
    updates, state = make(along_the_bias(1, 2, 3)), defense.init(server)
    matrix = updates.matrix.copy()
    _, after = defense.judge(updates, server, state)
    assert not state["center"].any()
    np.testing.assert_array_equal(updates.matrix, matrix)
    assert after["center"].dtype == np.float32
    assert after["center"].shape == (LAYOUT.size,)
    assert not after["center"][~TRAINABLE].any()


def test_a_round_without_finite_rows_keeps_the_center(server) -> None:
    defense = create(tau=1)
    _, state = defense.judge(make(along_the_bias(1, 2, 3)), server, defense.init(server))
    verdict, after = defense.judge(make(along_the_bias(np.nan, np.inf)), server, state)
    np.testing.assert_array_equal(after["center"], state["center"])
    assert not verdict.aggregate.any()


def test_rows_that_are_not_finite_are_left_out(server) -> None:
    matrix = along_the_bias(1, 3, 5, 7)
    matrix[3, 4] = np.nan
    verdict = judge(create(tau=4), make(matrix), server)
    assert verdict.aggregate[-1] == pytest.approx((1 + 3 + 4) / 3)
    np.testing.assert_allclose(verdict.weights, [1 / 3, 1 / 3, 1 / 3, 0])
    assert verdict.scores[3] == np.inf


@pytest.mark.parametrize("options", [{}, {"tau": 3}, {"tau": 3, "iterations": 4}])
def test_a_huge_row_is_bounded(server, options: dict) -> None:
    matrix = along_the_bias(1, 1.5, 2, 2.5, 3)
    matrix[2, TRAINABLE] = -1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(create(malicious=1, **options), make(matrix), server)
    bound = 3 * options.get("iterations", 1)
    assert np.linalg.norm(verdict.aggregate[TRAINABLE]) <= bound
    assert np.isfinite(verdict.scores).all()
    assert verdict.flagged.tolist() == [False, False, True, False, False]


def test_everybody_at_the_center(server) -> None:
    with np.errstate(all="raise"):
        verdict = judge(create(), make(along_the_bias(0, 0, 0)), server)
    assert verdict.scores.tolist() == [0, 0, 0]
    assert not verdict.aggregate.any()
    assert not verdict.flagged.any()


@properties
@given(matrix=matrices, seed=st.integers(0, 9), tau=st.floats(0.01, 100))
def test_order_does_not_matter_and_tau_bounds_the_move(
    server, matrix, seed: int, tau: float
) -> None:
    order = np.random.default_rng(seed).permutation(len(matrix))
    defense = create(tau=tau)
    _, state = defense.judge(make(matrix[::-1]), server, defense.init(server))
    one, _ = defense.judge(make(matrix), server, state)
    other, _ = defense.judge(make(matrix[order]), server, state)
    np.testing.assert_allclose(other.aggregate, one.aggregate, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-12)
    move = (one.aggregate - state["center"])[TRAINABLE]
    assert np.linalg.norm(move) <= tau + 1e-3
    assert one.weights.sum() == pytest.approx(1)


@properties
@given(matrix=matrices)
def test_a_radius_that_nobody_exceeds_is_the_mean(server, matrix) -> None:
    verdict = judge(create(tau=1e6), make(matrix), server)
    np.testing.assert_allclose(verdict.aggregate, matrix.mean(axis=0), rtol=1e-5, atol=1e-5)


def test_does_not_care_who_the_server_is(server) -> None:
    updates = make(along_the_bias(1, 2, 3))
    one = judge(create(), updates, server)
    other = judge(create(), updates, replace(server, seed=7))
    np.testing.assert_array_equal(one.aggregate, other.aggregate)


@pytest.mark.parametrize(("option", "value"), [("tau", 0), ("tau", "inf"), ("iterations", 0)])
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option}\b.* is not allowed"):
        create(**{option: value})


def test_refuses_a_majority(layout) -> None:
    with pytest.raises(UsageError, match=r"centered-clipping needs n > 2f: .* f = 2 is too many"):
        create(malicious=2).check(4, layout)
    create(malicious=1).check(4, layout)

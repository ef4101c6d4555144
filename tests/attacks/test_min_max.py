"""Min-Max and Min-Sum: their constraints hold, and nothing larger would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks

KINDS = ["std", "unit", "sign"]


def largest_distance(row: np.ndarray, honest: np.ndarray) -> tuple[float, float]:
    """Both sides of Min-Max, pair by pair."""
    allowed = max(((x - y) ** 2).sum() for x in honest for y in honest)
    return max(((row - x) ** 2).sum() for x in honest), allowed


def sum_of_distances(row: np.ndarray, honest: np.ndarray) -> tuple[float, float]:
    """Both sides of Min-Sum, pair by pair."""
    allowed = max(sum(((x - y) ** 2).sum() for y in honest) for x in honest)
    return sum(((row - x) ** 2).sum() for x in honest), allowed


SIDES = {"min-max": largest_distance, "min-sum": sum_of_distances}


@pytest.mark.parametrize("name", SIDES)
@given(
    seed=st.integers(0, 10_000),
    honest=st.integers(2, 9),
    kind=st.sampled_from(KINDS),
    size=st.sampled_from([1e-4, 1.0, 1e4]),
)
@settings(deadline=None, max_examples=60)
def test_the_constraint_is_met_and_tight(a_round, name, seed, honest, kind, size) -> None:
    matrix = size * np.random.default_rng(seed).normal(0.3, 1, (honest + 2, 41))
    this = a_round(matrix, honest=honest, malicious=2, seed=seed)
    row = this.row(attacks.create(name, {"perturbation": kind})).astype(np.float64)
    reached, allowed = SIDES[name](row, this.honest)
    assert reached == pytest.approx(allowed, rel=1e-4)

    center = this.honest.mean(axis=0)
    directions = {"std": -this.honest.std(axis=0), "unit": -center, "sign": -np.sign(center)}
    moved, direction = row - center, directions[kind]
    cosine = moved @ direction / np.linalg.norm(moved) / np.linalg.norm(direction)
    assert cosine == pytest.approx(1, abs=1e-5)
    farther, _ = SIDES[name](center + 1.001 * moved, this.honest)
    assert farther > allowed


@pytest.mark.parametrize("name", SIDES)
def test_a_search_by_halving_finds_no_other_step(a_round, name: str) -> None:
    """The paper's search, from γ = 50 down to steps of 1e-5."""
    this = a_round()
    center, direction = this.honest.mean(axis=0), -this.honest.std(axis=0)
    best, trial, step = 0.0, 50.0, 25.0
    while step > 1e-5:
        reached, allowed = SIDES[name](center + trial * direction, this.honest)
        if reached <= allowed:
            best, trial = trial, trial + step
        else:
            trial -= step
        step /= 2
    expected = center + best * direction
    np.testing.assert_allclose(this.row(attacks.create(name, {})), expected, atol=1e-3)


def test_by_hand(a_round) -> None:
    """Honest 0 and 4 on one axis: mean 2, σ 2; both bounds are 16, which only x = 0 … 4 meet."""
    matrix = np.zeros((3, 41))
    this = a_round(matrix, honest=2, malicious=1)
    matrix[np.flatnonzero(~this.malicious)[1], 0] = 4
    this = a_round(matrix, honest=2, malicious=1)
    for name in SIDES:
        assert this.row(attacks.create(name, {}))[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ["equal", "zero", "single"])
def test_nothing_to_hide_between_sends_the_mean(a_round, name, kind, rows: str) -> None:
    fill = {"equal": 3.0, "zero": 0.0, "single": 2.0}[rows]
    honest = 1 if rows == "single" else 3
    this = a_round(np.full((honest + 1, 41), fill), honest=honest, malicious=1)
    row = this.row(attacks.create(name, {"perturbation": kind}))
    np.testing.assert_array_equal(row, np.full(41, fill, np.float32))


@pytest.mark.parametrize("name", SIDES)
def test_an_outlier_of_1e30_is_hidden_behind(a_round, name: str, recwarn) -> None:
    this = a_round()
    this.updates.matrix[np.flatnonzero(~this.malicious)[0]] = 1e30
    row = this.row(attacks.create(name, {})).astype(np.float64)
    reached, allowed = SIDES[name](row, this.honest)
    assert reached == pytest.approx(allowed, rel=1e-4)
    assert not recwarn.list

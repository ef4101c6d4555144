"""Thresholds and votes: hand-computed values, then properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.thresholds import TOLERANCE, check_alpha, mean_std, median_mad
from tffl.defenses.parts import votes
from tffl.defenses.parts.votes import Vote

SCORES = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1e30))


def test_mean_std_by_hand() -> None:
    scores = np.array([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])  # mean 5, population std 2
    assert mean_std(scores, alpha=1.5) == pytest.approx(8 * (1 + TOLERANCE), rel=1e-12)


def test_median_mad_by_hand() -> None:
    scores = np.array([1.0, 2.0, 4.0, 8.0])  # median 3; distances 2, 1, 1, 5; their median 1.5
    expected = (3 + 2 * 1.4826 * 1.5) * (1 + TOLERANCE)
    assert median_mad(scores, k=2) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", [mean_std, median_mad])
def test_only_finite_scores_count(rule) -> None:
    dirty = np.array([1.0, math.nan, 2.0, math.inf, 4.0, -math.inf])
    assert rule(dirty, 1.0) == rule(np.array([1.0, 2.0, 4.0]), 1.0)
    assert math.isnan(rule(np.array([math.inf, math.nan]), 1.0))
    assert math.isnan(rule(np.empty(0), 1.0))


@given(value=st.floats(1e-30, 1e30), n=st.integers(1, 40), factor=st.floats(0, 5))
def test_equal_scores_are_never_above(value: float, n: int, factor: float) -> None:
    scores = np.full(n, value)
    assert not (scores > mean_std(scores, factor)).any()
    assert not (scores > median_mad(scores, factor)).any()


def test_zero_mad_flags_what_is_really_higher() -> None:
    scores = np.array([1.0, 1.0, 1.0, 1.0 + 1e-7, 1.01])
    assert (scores > median_mad(scores, 3.5)).tolist() == [False, False, False, False, True]


@given(scores=SCORES, factor=st.floats(0, 5), seed=st.integers(0, 9))
def test_order_does_not_matter(scores: np.ndarray, factor: float, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(scores)
    assert median_mad(shuffled, factor) == median_mad(scores, factor)
    assert mean_std(shuffled, factor) == pytest.approx(mean_std(scores, factor), rel=1e-9)


@given(honest=arrays(np.float64, 6, elements=st.floats(0, 1)), attack=st.floats(100, 1e30))
def test_a_minority_cannot_hide_behind_the_median(honest: np.ndarray, attack: float) -> None:
    scores = np.append(honest, [attack] * 3)
    assert (scores[6:] > median_mad(scores, 3.5)).all()


@given(n=st.integers(2, 60), m=st.integers(1, 60))
def test_the_bound_of_alpha_is_tight(n: int, m: int) -> None:
    if m >= n:
        return
    scores = np.repeat([0.0, 1.0], [n - m, m])
    bound = math.sqrt((n - m) / m)
    assert (scores > mean_std(scores, bound * 0.999)).sum() == m
    assert (scores > mean_std(scores, bound)).sum() == 0


def test_alpha_that_can_never_fire_is_refused() -> None:
    check_alpha(2.99, 10)
    with pytest.raises(UsageError, match=r"never flag anyone among 10 .* a single one 3; choose"):
        check_alpha(3.0, 10)
    with pytest.raises(UsageError):
        check_alpha(0.0, 1)


def test_two_of_three_votes_by_hand() -> None:
    memory = Vote(window=3).start(clients=3)
    ids = np.array([0, 2])
    rejected = []
    for flags in ([1, 0], [0, 1], [1, 0], [0, 0], [0, 1]):
        memory = votes.remember(memory, ids, np.array(flags, dtype=bool))
        rejected.append(votes.outvoted(memory[ids], votes=2).tolist())
    assert rejected == [
        [True, False],  # a first round decides by itself
        [False, False],  # 1 of 2 rounds, 2 needed
        [True, False],  # 2 of 3
        [False, False],
        [False, False],  # client 2 was flagged in 2 of 5 rounds, but in 1 of its last 3
    ]
    assert memory.tolist() == [[0, 0, 1], [-1, -1, -1], [1, 0, 0]]


def test_blocks_vote_at_their_ends() -> None:
    rounds = range(1, 10)
    assert [votes.is_ballot_round("blocks", round, 3) for round in rounds] == [
        False,
        False,
        True,
    ] * 3
    assert [votes.is_ballot_round("blocks", round, 1) for round in rounds] == [True] * 9
    assert all(votes.is_ballot_round("sliding", round, 3) for round in rounds)


@given(flags=st.lists(st.booleans(), min_size=1, max_size=12))
def test_window_one_is_no_memory(flags: list[bool]) -> None:
    memory = Vote().start(1)
    for flag in flags:
        memory = votes.remember(memory, np.array([0]), np.array([flag]))
        assert votes.outvoted(memory, 1).tolist() == [flag]


@given(
    window=st.integers(1, 5),
    data=st.data(),
    flags=st.lists(st.booleans(), min_size=1, max_size=12),
)
def test_vote_counts_the_latest_rounds(window: int, data: st.DataObject, flags: list[bool]) -> None:
    needed = data.draw(st.integers(1, window))
    memory = Vote(window).start(1)
    for flag in flags:
        memory = votes.remember(memory, np.array([0]), np.array([flag]))
    recent = flags[-window:]
    expected = sum(recent) >= math.ceil(needed * len(recent) / window)
    assert votes.outvoted(memory, needed).tolist() == [expected]

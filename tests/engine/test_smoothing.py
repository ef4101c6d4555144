"""CRFL's certificate: the authors' numbers, and attempts to break the bounds behind it."""

from __future__ import annotations

import math
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from tffl.engine.smoothing import (
    Poisoning,
    SmoothedCertificates,
    certified_radii,
    contraction,
    logistic_lipschitz,
    vote_bounds,
)

VOTES = np.array([[990, 10, 0], [700, 200, 100], [1000, 0, 0]])
AUTHORS = {
    (0.01, 0.01, 100): [0.943483, 0.341407, 0.992917],
    (2.0, 1.5, 14): [227.394382, 82.284416, 239.308582],
    (3.0, 4.0, 30): [2414.874526, 873.84103, 2541.400504],
}
"""(σ while training, σ of the copies, T) → radii of AI-secure/CRFL for VOTES of 1000 copies.

From `cal_prob_bound` and `certify` of `certify_mnist.py` at 549eb53: N = 20, R = 2, γ = 10, η =
0.001, 5 of 100 samples of a batch poisoned, t_adv = 10, α = 0.001, L_Z for a norm of 3.
"""


@pytest.mark.parametrize("case", AUTHORS)
def test_radii_are_those_of_the_authors_code(case: tuple[float, float, int]) -> None:
    noise, last_noise, rounds = case
    later = range(11, rounds + 1)
    factor = contraction([2 + 0.1 * t for t in later], [*[noise] * (rounds - 11), last_noise])
    poisoning = Poisoning(2, 1 / 20, 30, 0.001, share=0.05, scale=10)
    drift = math.sqrt(2 + 2 * 3 + 3**2) * poisoning.reach
    lower, upper = vote_bounds(VOTES, 1000, 0.001)
    found = certified_radii(lower, upper, noise, drift, factor)
    np.testing.assert_allclose(found, AUTHORS[case], rtol=1e-5)


def test_an_undecided_vote_has_no_radius() -> None:
    """The authors' code gives the first one a radius of 0.063."""
    lower, upper = vote_bounds(np.array([[520, 480], [500, 500], [530, 470]]), 1000, 0.001)
    assert np.isnan(certified_radii(lower, upper, 0.01, 0.01)).all()


def test_noise_of_later_rounds_lowers_a_divergence_only_where_it_is_large() -> None:
    assert contraction([2.0] * 50, [0.01] * 50) == 1.0
    assert contraction([1.0, 2.0], [1.0, 1.0]) == pytest.approx(0.682689 * 0.954500, rel=1e-5)
    assert contraction([1.0], [0.0]) == 1.0 and contraction([], []) == 1.0


def test_no_half_space_flips_within_the_radius() -> None:
    """A Gaussian beside a hyperplane is the worst case; twice the radius holds there too."""
    for p in np.linspace(0.51, 0.999, 60):
        moved = certified_radii(np.array([p]), np.array([1 - p]), noise=0.3, drift=1.0)[0]
        assert 2 * moved <= 0.3 * NormalDist().inv_cdf(p)


def gradient(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy of logistic regression; a bias is the last column of both."""
    logits = x @ weights.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return (p - y).T @ x / len(x)


def with_ones(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


def of_norm(rows: np.ndarray, norm: float) -> np.ndarray:
    return rows * norm / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("size", "norm"), product([0.5, 3.0, 12.0], [1.0, 8.0]))
def test_the_gradient_never_moves_faster_than_derived(size: float, norm: float) -> None:
    rng, bound = np.random.default_rng(0), logistic_lipschitz(size, norm)
    fastest = 0.0
    for _ in range(400):
        weights = of_norm(rng.normal(size=(1, 3 * 6)), size).reshape(3, 6)
        x = of_norm(rng.normal(size=(1, 5)), norm * rng.uniform())
        y, other = np.eye(3)[rng.integers(3, size=(2, 1))]
        near = x * (1 - rng.uniform(0, 0.2)) if rng.uniform() < 0.5 else x
        moved = gradient(weights, with_ones(x), y) - gradient(weights, with_ones(near), other)
        difference = math.hypot(np.linalg.norm(x - near), np.linalg.norm(y - other))
        if difference > 1e-9:
            fastest = max(fastest, float(np.linalg.norm(moved)) / difference)
    assert 0.1 * bound < fastest <= bound
    if norm == 8.0 and size == 0.5:  # the authors' constant is for inputs of norm 1
        assert fastest > math.sqrt(2 + 2 * size + size**2)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_poisoned_training_stays_within_the_drift(share: float) -> None:
    """Two of five clients train on other labels and inputs; the mean moves less than L·reach·δ."""
    rng, norm, steps = np.random.default_rng(1), 2.0, 12
    rate = 2 / ((norm**2 + 1) / 2)  # the largest that is allowed
    start = 0.3 * rng.normal(size=(3, 6))
    x = of_norm(rng.normal(size=(5, 8, 5)).reshape(-1, 5), norm * 0.9).reshape(5, 8, 5)
    y = np.eye(3)[rng.integers(3, size=(5, 8))]
    worst = 0.0
    for direction in range(20):
        bad_x, bad_y = x.copy(), y.copy()
        count = round(8 * share)
        bad_y[:2, :count] = np.eye(3)[direction % 3]
        bad_x[:2, :count] += of_norm(rng.normal(size=(1, 5)), 0.1 * norm)
        delta = np.sqrt(((bad_x - x) ** 2).sum(axis=2) + ((bad_y - y) ** 2).sum(axis=2)).max()
        ends, longest = [], 0.0
        for inputs, labels in ((x, y), (bad_x, bad_y)):
            clients = []
            for one, label in zip(inputs, labels, strict=True):
                weights = start.copy()
                for _ in range(steps):
                    longest = max(longest, float(np.linalg.norm(weights)))
                    weights -= rate * gradient(weights, with_ones(one), label)
                clients.append(weights)
            ends.append(np.mean(clients, axis=0))
        reach = Poisoning(2, 1 / 5, steps, rate, share).reach
        bound = logistic_lipschitz(longest, norm) * reach * delta
        worst = max(worst, float(np.linalg.norm(ends[1] - ends[0])) / bound)
    assert 0.01 < worst <= 1


def test_accuracies_and_rows() -> None:
    votes = np.array([[90, 10, 0], [10, 80, 10], [0, 40, 60], [0, 0, 0]])
    radii = np.array([3.0, 2.0, np.nan, np.nan])
    found = SmoothedCertificates(votes, np.array([0, 2, 2, 0]), radii)
    assert found.predicted.tolist() == [0, 1, 2, -1]
    assert found.smoothed_accuracy == 0.5 and found.largest == 3
    assert [found.rate(r) for r in (0, 2.5, 4)] == [0.5, 0.25, 0]
    assert [found.accuracy(r) for r in (0, 2.5)] == [0.25, 0.25]
    rows = found.rows()
    assert list(rows[0].values()) == [0, 0, 0, 90, 10, 3.0]
    assert rows[2]["radius"] is None and rows[3]["predicted"] is None
    assert SmoothedCertificates(votes, np.zeros(4), np.full(4, np.nan)).largest == 0

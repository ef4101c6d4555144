"""A little is enough: the formula for z, and the rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tffl.attacks import attacks
from tffl.attacks.lie import largest_z
from tffl.core.errors import UsageError


@pytest.mark.parametrize(
    ("participants", "malicious", "z"),
    [(50, 24, 1.426), (100, 20, 0.286), (10, 3, 0.180), (10, 2, 0.0), (10, 1, 0.0)],
)
def test_golden_values(participants: int, malicious: int, z: float) -> None:
    assert largest_z(participants, malicious) == pytest.approx(z, abs=5e-4)


def test_is_the_formula_wherever_that_is_positive() -> None:
    for n in range(2, 40):
        for m in range(1, n // 2 + 1):
            s = n // 2 + 1 - m
            z = norm.ppf((n - m - s) / (n - m))
            assert largest_z(n, m) == pytest.approx(max(z, 0), abs=1e-9)


def test_is_finite_for_a_majority_of_attackers() -> None:
    for n in range(1, 20):
        values = [largest_z(n, m) for m in range(n + 1)]
        assert np.isfinite(values).all() and min(values) >= 0


@pytest.mark.parametrize("options", [{"z": 1.5}, {"z": -0.5}, {}])
def test_sends_mean_minus_deviations(a_round, options: dict) -> None:
    this = a_round(honest=7, malicious=4)
    z = options.get("z", norm.ppf((11 - 4 - 2) / 7))
    row = this.row(attacks.create("lie", options))
    expected = this.honest.mean(axis=0) - z * this.honest.std(axis=0)
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_the_papers_attackers_know_only_each_other(a_round) -> None:
    this = a_round()
    row = this.row(attacks.create("lie", {"z": 1, "knows": "colluders"}))
    np.testing.assert_allclose(row, this.own.mean(0) - this.own.std(0), rtol=1e-5, atol=1e-6)


def test_a_single_attacker_on_its_own_sends_what_it_trained(a_round) -> None:
    this = a_round(malicious=1)
    row = this.row(attacks.create("lie", {"z": 1, "knows": "colluders"}))
    np.testing.assert_allclose(row, this.own[0], rtol=1e-6)


def test_refuses_to_send_the_mean_in_every_round() -> None:
    attack = attacks.create("lie", {})
    with pytest.raises(UsageError, match="gives z = 0 for 2 malicious of 10 participants") as error:
        attack.check_clients(2, 10)
    assert "\n" not in str(error.value)
    attack.check_clients(0, 10)
    attack.check_clients(3, 10)
    attack.check_clients(30, 10)
    attacks.create("lie", {"z": 1}).check_clients(1, 10)

"""Gaussian and uniform noise, and rows that are no numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tffl.attacks import attacks
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates

WIDE = WeightLayout((Entry("a", (4000,), True),))


def wide(this) -> tuple[Updates, np.ndarray]:
    """A round with enough columns for statistics; updates are constants."""
    matrix = np.repeat(np.arange(12, dtype=np.float32)[:, None], WIDE.size, axis=1)
    return replace(this.updates, matrix=matrix, layout=WIDE, start=matrix[0]), this.malicious


def crafted(this, name: str, **options) -> np.ndarray:
    updates, malicious = wide(this)
    return attacks.create(name, options).craft(updates, malicious, this.adversary, {})[0]


def test_gaussian_noise_has_its_moments(a_round) -> None:
    this = a_round()
    rows = crafted(this, "gaussian", mean=3, std=0.5)
    for row in rows:
        assert stats.kstest((row - 3) / 0.5, "norm").pvalue > 1e-3
    around = crafted(this, "gaussian", mean=3, std=0.5, around="own")
    own = np.flatnonzero(this.malicious)[:, None]
    np.testing.assert_allclose(around - own, rows, atol=1e-5)


def test_uniform_noise_lies_on_the_own_weights(a_round) -> None:
    this = a_round()
    noise = crafted(this, "uniform") - np.flatnonzero(this.malicious)[:, None]
    for row in noise:
        assert row.min() >= 1 - 1e-5 and row.max() <= 2 + 1e-5
        assert stats.kstest(row - 1, "uniform").pvalue > 1e-3
    noise = crafted(this, "uniform", low=-3, high=-2.5) - np.flatnonzero(this.malicious)[:, None]
    assert noise.min() >= -3 - 1e-5 and noise.max() <= -2.5 + 1e-5


@pytest.mark.parametrize(
    ("name", "options"),
    [("gaussian", {}), ("gaussian", {"around": "own"}), ("uniform", {})],
)
def test_every_client_and_round_has_its_own_noise(a_round, name: str, options: dict) -> None:
    def noise(**changes) -> np.ndarray:
        this = a_round(**changes)
        own = np.flatnonzero(this.malicious)[:, None]
        return crafted(this, name, **options) - own * (options != {} or name == "uniform")

    rows = noise()
    assert np.abs(np.corrcoef(rows) - np.eye(3)).max() < 0.1
    np.testing.assert_array_equal(rows, noise())
    assert np.abs(rows - noise(experiment=6)).max() > 0.1


def test_noise_beyond_float32_is_infinite_without_a_warning(a_round, recwarn) -> None:
    this = a_round()
    assert np.isinf(crafted(this, "gaussian", std=1e300)).all()
    assert np.isinf(crafted(this, "uniform", low=1e300, high=2e300)).all()
    assert not recwarn.list


def test_refuses_an_empty_interval() -> None:
    message = r"^attack.low = 2.0 must be below attack.high = 2.0$"
    with pytest.raises(UsageError, match=message):
        attacks.create("uniform", {"low": 2, "high": 2})
    with pytest.raises(UsageError, match=message):
        attacks["uniform"](low=2, high=2)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_sends_what_is_no_number(a_round, number: str) -> None:
    rows = a_round().sent(attacks.create("non-finite", {"number": number}))
    np.testing.assert_array_equal(rows, np.full(rows.shape, float(number)))


def test_mixed_numbers_are_all_there(a_round) -> None:
    rows = crafted(a_round(), "non-finite", number="mixed")
    assert not np.isfinite(rows).any()
    for is_it in (np.isnan, np.isposinf, np.isneginf):
        assert abs(is_it(rows).mean() - 1 / 3) < 0.05
    assert not np.array_equal(np.isnan(rows[0]), np.isnan(rows[1]))


def test_one_bad_parameter_is_enough(a_round) -> None:
    this = a_round()
    sent, _ = this.attacked(attacks.create("non-finite", {"poisoning_ratio": 1e-9}))
    assert (np.isnan(sent.matrix).sum(axis=1) == this.malicious).all()
    assert (sent.finite() == ~this.malicious).all()

"""Sign flip of the own update, and of the honest mean."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.core.errors import UsageError


def test_negates_the_own_update(a_round) -> None:
    this = a_round()
    np.testing.assert_array_equal(this.sent(attacks.create("sign-flip", {})), -this.own)
    sent = this.sent(attacks.create("sign-flip", {"strength": 3}))
    np.testing.assert_allclose(sent, -3 * this.own, rtol=1e-6)


def test_negates_the_honest_mean(a_round) -> None:
    this = a_round()
    row = this.row(attacks.create("sign-flip", {"flips": "mean", "strength": 2}))
    np.testing.assert_allclose(row, -2 * this.honest.mean(axis=0), rtol=1e-6)


def test_without_honest_participants_the_mean_is_their_own(a_round) -> None:
    this = a_round(honest=0)
    row = this.row(attacks.create("sign-flip", {"flips": "mean"}))
    np.testing.assert_allclose(row, -this.own.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("strength", [0, -1, "inf"])
def test_refuses_no_strength(strength: object) -> None:
    with pytest.raises(UsageError, match=r"attack\.strength"):
        attacks.create("sign-flip", {"strength": strength})

"""Inner product manipulation."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.core.errors import UsageError


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 100])
def test_points_against_the_honest_mean(a_round, epsilon: float) -> None:
    this = a_round()
    row = this.row(attacks.create("ipm", {"epsilon": epsilon}))
    np.testing.assert_allclose(row, -epsilon * this.honest.mean(axis=0), rtol=1e-6)


def test_turns_a_mean_only_beyond_the_documented_bound(a_round, layout) -> None:
    this = a_round(honest=9, malicious=3)
    for epsilon, turned in ((2.9, False), (3.1, True)):
        sent, _ = this.attacked(attacks.create("ipm", {"epsilon": epsilon}))
        joint = sent.matrix.astype(np.float64).mean(axis=0)[layout.trainable]
        assert (joint @ this.honest.mean(axis=0) < 0) == turned


@pytest.mark.parametrize("epsilon", [0, -1, "nan"])
def test_refuses_no_manipulation(epsilon: object) -> None:
    with pytest.raises(UsageError, match=r"attack\.epsilon"):
        attacks.create("ipm", {"epsilon": epsilon})

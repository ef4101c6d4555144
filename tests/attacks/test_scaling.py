"""Scaling: by hand, and that it replaces the model."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.core.errors import UsageError


def test_multiplies_the_own_update(a_round) -> None:
    this = a_round()
    sent = this.sent(attacks.create("scaling", {"factor": -2.5}))
    np.testing.assert_array_equal(sent, (-2.5 * this.own).astype(np.float32))


@pytest.mark.parametrize(("honest", "malicious"), [(9, 1), (9, 3), (0, 4)])
def test_the_default_replaces_the_model(a_round, layout, honest: int, malicious: int) -> None:
    this = a_round(honest=honest, malicious=malicious)
    sent, _ = this.attacked(attacks.create("scaling", {}))
    np.testing.assert_allclose(
        sent.matrix[this.malicious][:, layout.trainable],
        (honest + malicious) / malicious * this.own,
        rtol=1e-6,
    )
    # Near convergence honest updates are small, and the mean is the colluders' own.
    sent.matrix[~this.malicious] = 0
    joint = sent.matrix.astype(np.float64).mean(axis=0)[layout.trainable]
    np.testing.assert_allclose(joint, this.own.mean(axis=0), rtol=1e-5)


def test_a_huge_factor_gives_infinity_without_a_warning(a_round, recwarn) -> None:
    sent = a_round().sent(attacks.create("scaling", {"factor": 1e300}))
    assert np.isinf(sent).all()
    assert not recwarn.list


@pytest.mark.parametrize("factor", ["nan", "inf", "much"])
def test_refuses_a_factor_that_is_no_number(factor: str) -> None:
    with pytest.raises(UsageError, match=r"^attack\.factor.* is not allowed"):
        attacks.create("scaling", {"factor": factor})

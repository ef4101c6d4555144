"""Relocated orthogonal perturbation: the authors' numbers, angle, length, and memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.attacks.rop import Rop
from tffl.core.errors import UsageError
from tffl.core.updates import Updates

HONEST = np.array([[0.4, -1.0, 0.3, 2.0], [0.8, -0.2, -0.5, 1.0], [-0.6, 0.6, 0.8, 3.0]])
STEP = np.array([0.5, 0.25, -1.0, 1.5])
DISTANCE = 1.3140268896
"""Root mean square distance of the honest rows from their mean, (0.2, −0.2, 0.2, 2)."""

# `reloc` in attacks/rop.py of CRYPTO-KU/FL-Byzantine-Library (327adf0), computed line by line with
# λ = 0.9 and z_max = 2 from minus these rows, as it works on momentums; the signs are turned back.
# Angle and π → the row of the first round, and that of the second after the step above.
AUTHORS = {
    (270, 1.0): (
        [1.062803, 1.316951, 1.062803, -0.080865],
        [1.37583, 1.237013, 0.442237, 1.922704],
    ),
    (180, 1.0): (
        [-0.197066, 0.197066, -0.197066, -1.970659],
        [-0.006827, 0.028937, -0.051047, -0.171451],
    ),
    (40, 0.3): (
        [-0.392195, -1.137481, -0.392195, 2.961591],
        [0.115279, -0.530096, -1.813992, 2.858697],
    ),
}


@pytest.mark.parametrize(("angle", "location"), list(AUTHORS))
def test_rows_are_those_of_the_authors(angle: float, location: float) -> None:
    attack = Rop(z=2 / DISTANCE, angle=angle, location=location)
    rows, malicious = np.vstack([np.ones(4), HONEST]), np.array([True, False, False, False])
    state: dict = {}
    for number, expected in enumerate(AUTHORS[angle, location], start=1):
        start = (number - 1) * STEP
        updates = Updates.of_rows(rows, start=start, round=number)
        sent, state = attack.send(updates, malicious, SimpleNamespace(seed=0), state)
        np.testing.assert_allclose(sent, [expected], atol=2e-6)


def second_round(this, attack: Rop, start: np.ndarray, number: int = 2):
    """Returns the row that is sent in a later round, in trainable columns."""
    _, state = this.attacked(attack)
    later = replace(this.updates, start=start.astype(np.float32), round=number)
    free = this.updates.layout.trainable
    return replace(this, updates=later).attacked(attack, state)[0].matrix[this.malicious][0][free]


@given(seed=st.integers(0, 10_000), angle=st.floats(0, 360), z=st.floats(0.1, 5))
@settings(deadline=None, max_examples=40)
def test_the_perturbation_has_its_length_and_angle(a_round, seed, angle, z) -> None:
    this = a_round(seed=seed)
    step = np.random.default_rng(seed).normal(0, 1, len(this.updates.start))
    sent = second_round(this, Rop(z=z, angle=angle, memory=1), this.updates.start + step)
    step = step[this.updates.layout.trainable]
    spread = np.sqrt(np.square(this.honest - this.honest.mean(axis=0)).sum(axis=1).mean())
    moved = sent - step
    assert np.linalg.norm(moved) == pytest.approx(z * spread, rel=1e-4)
    cosine = moved @ step / np.linalg.norm(moved) / np.linalg.norm(step)
    assert cosine == pytest.approx(np.cos(np.radians(angle)), abs=1e-4)


def test_after_a_pause_the_step_is_that_of_one_round(a_round) -> None:
    this = a_round()
    moved = this.updates.start + np.ones(len(this.updates.start))
    far = this.updates.start + 3 * np.ones(len(this.updates.start))
    np.testing.assert_allclose(
        second_round(this, Rop(), moved, 2), second_round(this, Rop(), far, 4), atol=1e-4
    )


def test_nothing_to_turn_from_is_no_obstacle(a_round, recwarn) -> None:
    for fill in (0.0, np.inf):
        this = a_round(np.full((12, 41), fill))
        this.sent(Rop())
    assert not recwarn.list
    assert (a_round(np.zeros((12, 41))).row(Rop()) == 0).all()


def test_one_update_has_no_distance() -> None:
    for options, malicious in (({"knows": "colluders"}, 1), ({"overheard": 1}, 2)):
        attack = attacks.create("rop", {"knows": "overheard", **options})
        with pytest.raises(UsageError, match="no distance from the mean"):
            attack.check_clients(malicious, 10)
    with pytest.raises(UsageError, match=r"attack\.angle"):
        attacks.create("rop", {"angle": 361})

"""PoisonedFL: the authors' numbers, one direction in all rounds, and a factor that listens."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from tffl.attacks.poisonedfl import PoisonedFL, chance_agreements, followed, next_row
from tffl.core.errors import UsageError
from tffl.core.updates import Updates

WEIGHTS = np.array(
    [
        [0.1, -0.2, 0.3, 0.0, 0.5, -0.6],
        [0.2, -0.1, 0.1, 0.4, 0.5, -0.9],
        [0.15, -0.3, 0.2, 0.9, 0.4, -0.7],
        [0.5, -0.3, -0.2, 1.1, 0.6, -1.2],
    ]
)
SIGNS = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
# Rows of `poisonedfl` in byzantine.py of xyq7/PoisonedFL, computed line by line from these weights,
# signs and a factor of 8, with the row before it as last_grad.
AUTHORS = np.array(
    [
        [0.8, -0.8, -1.6, 3.2, 0.0, -2.4],
        [1.151979, -0.68666, -2.303959, 0.540274, 0.735456, -3.823666],
        [3.679052, -2.598584, -0.467892, 2.548874, 1.81023, -2.986523],
    ]
)


def at(start: np.ndarray, number: int) -> Updates:
    rows = np.random.default_rng(number).normal(0, 1, (3, len(start)))
    return Updates.of_rows(rows, start=start, round=number)


def test_rows_are_those_of_the_authors() -> None:
    sent = np.zeros(6)
    for before, now, expected in zip(WEIGHTS[:-1], WEIGHTS[1:], AUTHORS, strict=True):
        sent = next_row(now - before, sent, SIGNS, factor=8.0)
        np.testing.assert_allclose(sent, expected, atol=1e-5)


@pytest.fixture
def colluders(a_round):
    """Two colluders of three clients, and their signs for six weights."""

    def play(attack: PoisonedFL, starts, rounds) -> tuple[list[np.ndarray], dict]:
        state: dict = {}
        rows = []
        for start, number in zip(starts, rounds, strict=True):
            updates = at(start, number)
            malicious = np.array([True, True, False])
            sent, state = attack.send(updates, malicious, a_round().adversary, state)
            assert (sent[0] == sent[1]).all()
            rows.append(sent[0])
        return rows, state

    return play


def test_whole_rounds_are_those_of_the_authors(colluders, monkeypatch) -> None:
    monkeypatch.setattr(PoisonedFL, "signs", lambda *_: SIGNS)
    rows, state = colluders(PoisonedFL(), WEIGHTS, range(1, 5))
    assert (rows[0] == 0).all(), "there is no step to measure yet"
    np.testing.assert_allclose(rows[1:], AUTHORS, atol=1e-4)
    np.testing.assert_array_equal(state["sent"], rows[-1])


def test_one_direction_in_all_rounds(colluders, a_round) -> None:
    attack = PoisonedFL()
    signs = attack.signs(at(WEIGHTS[0], 1), a_round().adversary)
    assert {*signs} == {1.0, -1.0}
    for row in colluders(attack, WEIGHTS, range(1, 5))[0]:
        assert (row * signs >= 0).all()


def test_after_a_pause_the_step_is_that_of_one_round(colluders) -> None:
    steady, _ = colluders(PoisonedFL(), WEIGHTS[:2], (1, 2))
    paused, _ = colluders(PoisonedFL(), WEIGHTS[:2], (1, 5))
    np.testing.assert_allclose(paused[1], steady[1] / 4, rtol=1e-5)


@pytest.mark.parametrize(("follows", "factor"), [(True, 8.0), (False, 5.6)])
def test_the_factor_falls_where_the_model_does_not_follow(
    colluders, a_round, follows: bool, factor: float
) -> None:
    """Tested in the fourth round: three rounds after the first, against the second one's start."""
    attack, start = PoisonedFL(interval=3), np.linspace(-1, 1, 200)
    signs = attack.signs(at(start, 1), a_round().adversary)
    way = signs if follows else -signs
    starts = [start, start - 50 * way, start + way, start + 2 * way, start + 3 * way]
    _, before = colluders(attack, starts[:3], (1, 2, 3))
    assert before["factor"] == 8 and before["reference_round"] == 2
    _, after = colluders(attack, starts[:4], (1, 2, 3, 4))
    assert after["factor"] == pytest.approx(factor) and "reference" not in after
    _, later = colluders(attack, starts, (1, 2, 3, 4, 5))
    np.testing.assert_array_equal(later["reference"], starts[4].astype(np.float32))


def test_the_factor_stays_above_its_least_value(colluders, a_round) -> None:
    attack, start = PoisonedFL(interval=2, factor=0.6), np.zeros(50)
    signs = attack.signs(at(start, 1), a_round().adversary)
    _, state = colluders(attack, [start - k * signs for k in range(5)], range(1, 6))
    assert state["factor"] == 0.6, "0.42 would be below 0.5"


def test_a_weight_that_has_not_moved_counts_with_its_sign() -> None:
    signs = np.where(np.arange(400) % 2, 1.0, -1.0)
    assert followed(np.zeros(400), signs, signs) and not followed(np.zeros(400), -signs, signs)
    assert followed(signs, -signs, signs) and not followed(-signs, signs, signs)
    chance = chance_agreements(400)
    for agreeing, expected in ((chance, True), (chance - 1, False)):
        change = np.where(np.arange(400) < agreeing, signs, -signs)
        assert followed(change, signs, signs) is expected
    half = np.where(np.arange(400) < 200, signs, 0)
    assert chance_agreements(200) < 200 and followed(signs, signs, half)


def test_the_quantile_is_that_of_fair_coins() -> None:
    flips = np.random.default_rng(0).integers(0, 2, (20_000, 100)).sum(axis=1)
    share = (flips < chance_agreements(100)).mean()
    assert 0.97 < share < 0.995 and NormalDist().cdf(2.33) > 0.99


def test_columns_that_may_not_change_stay_as_trained(a_round, layout) -> None:
    this, attack = a_round(), PoisonedFL(poisoning_ratio=0.5)
    _, state = this.attacked(attack)
    moved = replace(this, updates=replace(this.updates, start=this.updates.start + 1, round=2))
    sent, after = moved.attacked(attack, state)
    fixed = ~attack.modifiable(layout, this.adversary.seed)
    np.testing.assert_array_equal(sent.matrix[:, fixed], this.updates.matrix[:, fixed])
    assert (after["sent"][fixed] == 0).all() and (after["sent"][~fixed] != 0).all()


@pytest.mark.parametrize("options", [{"factor": 0}, {"interval": 1}])
def test_refuses_impossible_options(options: dict) -> None:
    with pytest.raises(UsageError, match="is not allowed"):
        PoisonedFL(**options)

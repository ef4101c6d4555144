"""Mimic: whom it copies, and what it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.attacks import attacks


def victims(rounds, attack, state=None) -> tuple[list[int], dict]:
    """Returns the ids of the copied clients, and the last memory."""
    copied = []
    for this in rounds:
        sent, state = this.attacked(attack, state)
        row = sent.matrix[this.malicious][:, this.updates.layout.trainable]
        assert (row == row[0]).all()
        match = (this.updates.matrix[:, this.updates.layout.trainable] == row[0]).all(axis=1)
        assert match.sum() == 1
        copied.append(int(this.updates.client_ids[match][0]))
    return copied, state


def without(this, client: int):
    """The round without one client."""
    rest = this.updates.client_ids != client
    updates = this.updates.select(rest)
    updates = replace(updates, matrix=updates.matrix[rest], rows=None)
    return replace(this, updates=updates, malicious=this.malicious[rest])


def naive(rounds, start: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The documented recursion, row by row."""
    z, mu, copied = start.astype(np.float64), 0.0, []
    for t, this in enumerate(rounds):
        rows = this.honest
        mu = (t * mu + rows.mean(axis=0)) / (t + 1)
        u = sum(((x - mu) @ z) * (x - mu) for x in rows)
        z = t * z + u / np.linalg.norm(u)
        z /= np.linalg.norm(z)
        ids = this.updates.client_ids[~this.malicious]
        copied.append(int(ids[np.argmax([x @ z for x in rows])]))
    return z, copied


def test_learns_by_the_documented_recursion(a_round, layout) -> None:
    attack = attacks.create("mimic", {"warmup": 4})
    rounds = [a_round(number=number) for number in range(1, 5)]
    start = attack.init(rounds[0].adversary)
    direction, expected = naive(rounds, start["direction"][layout.trainable])
    copied, state = victims(rounds, attack, start)
    assert copied == expected
    np.testing.assert_allclose(state["direction"][layout.trainable], direction, atol=1e-5)
    assert (state["direction"][~layout.trainable] == 0).all()
    assert state["rounds"].tolist() == [4] and state["victim"].tolist() == [expected[-1]]
    assert start["rounds"].tolist() == [0]


def test_finds_the_direction_in_which_clients_differ(a_round) -> None:
    """Client k sits at k on one axis, and hardly differs otherwise: an end is copied."""
    axis = np.random.default_rng(2).normal(size=41)
    axis /= np.linalg.norm(axis)

    def one(number: int):
        noise = np.random.default_rng(number).normal(0, 0.05, (12, 41))
        fixed = a_round(number=1).malicious
        return replace(
            a_round(np.outer(np.arange(12), axis) + noise, number=number), malicious=fixed
        )

    rounds = [one(number) for number in range(1, 9)]
    copied, state = victims(rounds, attacks.create("mimic", {}))
    honest = rounds[0].updates.client_ids[~rounds[0].malicious]
    assert set(copied) in ({int(honest[0])}, {int(honest[-1])})
    aligned = np.abs(state["direction"][rounds[0].updates.layout.trainable] @ axis)
    assert aligned > 0.99


def test_the_victim_stays_after_the_warm_up(a_round) -> None:
    attack = attacks.create("mimic", {"warmup": 2})
    warm, state = victims([a_round(number=1), a_round(number=2)], attack)
    later = [a_round(number=number) for number in range(3, 9)]
    later = [this for this in later if not this.malicious[(warm[-1] - 1) // 2]]
    copied, after = victims(later, attack, state)
    assert len(later) > 2 and set(copied) == {warm[-1]}
    assert after is state


def test_an_absent_victim_is_replaced_for_the_round(a_round, layout) -> None:
    attack = attacks.create("mimic", {"warmup": 1})
    this = a_round()
    (victim,), state = victims([this], attack)
    rest = without(this, victim)
    projected = rest.honest @ state["direction"][layout.trainable]
    ids = rest.updates.client_ids[~rest.malicious]
    assert victims([rest, this], attack, state)[0] == [int(ids[projected.argmax()]), victim]


def test_equal_updates_leave_the_direction(a_round) -> None:
    attack = attacks.create("mimic", {})
    this = a_round(np.zeros((12, 41)))
    sent, state = this.attacked(attack)
    np.testing.assert_array_equal(state["direction"], attack.init(this.adversary)["direction"])
    assert state["victim"] == this.updates.client_ids[~this.malicious][0]
    np.testing.assert_array_equal(sent.matrix[:, 0], this.updates.matrix[:, 0])


def test_a_fixed_victim_is_drawn_once(a_round) -> None:
    attack = attacks.create("mimic", {"victim": "fixed"})
    this = a_round()
    (victim,), state = victims([this], attack)
    assert state == {}
    same = [replace(a_round(number=number), malicious=this.malicious) for number in range(2, 6)]
    assert set(victims(same, attack)[0]) == {victim}
    (second,), _ = victims([without(this, victim)], attack)
    assert second != victim
    drawn = {victims([a_round(experiment=seed)], attack)[0][0] for seed in range(12)}
    assert len(drawn) > 3


@pytest.mark.parametrize("knows", ["overheard", "colluders"])
def test_copies_whom_it_hears(a_round, knows: str) -> None:
    this = a_round()
    attack = attacks.create("mimic", {"knows": knows, "overheard": 2})
    heard = attack.seen(this.updates, this.malicious, this.adversary).client_ids
    assert victims([this], attack)[0][0] in heard

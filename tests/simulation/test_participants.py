"""Who takes part: as chance has it, or with a given number of attackers in every round."""

from __future__ import annotations

import numpy as np
import pytest

from tffl.config import FederationConfig, build
from tffl.core import seeds
from tffl.core.errors import UsageError
from tffl.record.identity import identity
from tffl.simulation.participants import draw_participants

MALICIOUS = np.array([3, 17, 40, 41, 99])


def drawn(round: int, malicious: np.ndarray = MALICIOUS, **options: int) -> np.ndarray:
    federation = FederationConfig(clients=100, participants=10, malicious=5, **options)
    return draw_participants(federation, malicious, seeds.generator(1, "participants", round))


@pytest.mark.parametrize("wanted", [0, 1, 3, 5])
def test_exactly_so_many_attackers_take_part(wanted: int) -> None:
    rounds = [drawn(round, malicious_participants=wanted) for round in range(50)]
    for clients in rounds:
        assert len({*clients.tolist()}) == 10
        assert (np.diff(clients) > 0).all()
        assert np.isin(clients, MALICIOUS).sum() == wanted
    if wanted in (1, 3):
        assert {*np.concatenate(rounds).tolist()} >= {*MALICIOUS.tolist()}


def test_without_it_nothing_changes() -> None:
    for round in range(5):
        generator = seeds.generator(1, "participants", round)
        before = np.sort(generator.choice(100, 10, replace=False))
        np.testing.assert_array_equal(drawn(round), before)
        nobody = drawn(round, MALICIOUS[:0], malicious_participants=3)
        np.testing.assert_array_equal(nobody, before)


@pytest.mark.parametrize("wanted", [0, 2, 5])
def test_honest_ones_are_drawn_as_from_a_list_of_them(wanted: int) -> None:
    honest = np.setdiff1d(np.arange(100), MALICIOUS)
    for round in range(20):
        generator = seeds.generator(1, "participants", round)
        listed = [
            generator.choice(MALICIOUS, wanted, replace=False),
            generator.choice(honest, 10 - wanted, replace=False),
        ]
        expected = np.sort(np.concatenate(listed))
        np.testing.assert_array_equal(drawn(round, malicious_participants=wanted), expected)


@pytest.mark.parametrize(
    ("federation", "wanted", "allowed"),
    [
        ({"clients": 100, "participants": 10, "malicious": 3}, 4, "0 to 3"),
        ({"clients": 100, "participants": 2, "malicious": 3}, 3, "0 to 2"),
        ({"clients": 10, "malicious": 2}, 1, "2 to 2"),
    ],
)
def test_numbers_that_cannot_be_are_refused(federation: dict, wanted: int, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"malicious_participants = .* give {allowed}"):
        build({"federation": {**federation, "malicious_participants": wanted}})


def test_it_is_part_of_the_experiment() -> None:
    plain = build({"federation": {"participants": 5}})
    chosen = build({"federation": {"participants": 5, "malicious_participants": 1}})
    assert identity(chosen) != identity(plain)
    build({"federation": {"malicious": 0, "malicious_participants": 1}})  # attack-free, in compare

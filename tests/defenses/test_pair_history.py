"""The memory of pairs of clients, against loops over rounds."""

from __future__ import annotations

import numpy as np

from tffl.defenses.parts import pair_history
from tffl.defenses.parts.pair_history import PairHistory

FORGETTING = 0.8


def rounds(count: int, clients: int, present: int):
    rng = np.random.default_rng(0)
    for number in range(1, count + 1):
        ids = np.sort(rng.permutation(clients)[:present])
        pairs = rng.normal(size=(present, present))
        yield ids, number, pairs + pairs.T, rng.normal(size=(present, 2))


def add(history: PairHistory, ids, number: int, pairs, values) -> PairHistory:
    return history.with_pairs(ids, number, pairs, FORGETTING).with_values(ids, values, FORGETTING)


def test_means_are_weighted_by_how_long_ago_a_pair_met() -> None:
    history = PairHistory.empty(2)
    met: dict[tuple[int, int], list[float]] = {}
    own: dict[int, list[np.ndarray]] = {}
    for ids, number, pairs, values in rounds(9, clients=7, present=4):
        history = add(history, ids, number, pairs, values)
        for row, i in enumerate(ids.tolist()):
            own.setdefault(i, []).append(values[row])
            for column, j in enumerate(ids.tolist()):
                met.setdefault((i, j), []).append(pairs[row, column])

        def mean(past: list) -> np.ndarray:
            weights = FORGETTING ** np.arange(len(past))[::-1]
            return np.average(past, axis=0, weights=weights)

        found, held = history.of(ids)
        found_values = history.values[np.searchsorted(history.ids, ids)]
        expected = [[mean(met[i, j]) for j in ids.tolist()] for i in ids.tolist()]
        np.testing.assert_allclose(found, expected)
        np.testing.assert_allclose(found_values, [mean(own[i]) for i in ids.tolist()])
        assert not held.any()
    again = PairHistory.of_state(history.state)
    np.testing.assert_array_equal(again.pairs, history.pairs)


def test_convictions_stay_with_the_client() -> None:
    nothing = np.zeros((2, 1))
    history = add(PairHistory.empty(1), np.array([2, 5]), 1, np.eye(2), nothing)
    history = history.convicting(np.array([2, 5]), np.array([False, True]))
    history = add(history, np.array([1, 5]), 2, np.eye(2), nothing)
    assert history.of(np.array([1, 5]))[1].tolist() == [False, True]


def test_those_away_longest_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(pair_history, "MOST", 3)
    history = PairHistory.empty(1)
    for number, ids in enumerate(([0, 4], [1, 3], [0, 2]), start=1):
        history = add(history, np.array(ids), number, np.eye(2), np.full((2, 1), float(number)))
    assert history.ids.tolist() == [0, 1, 2] and history.pairs.shape == (3, 3)
    assert history.values[1] == 2


def test_a_round_of_more_clients_is_remembered_whole(monkeypatch) -> None:
    monkeypatch.setattr(pair_history, "MOST", 3)
    ids, pairs = np.arange(2, 7), np.arange(25.0).reshape(5, 5)
    history = add(PairHistory.empty(1), np.array([0, 1]), 1, np.eye(2), np.zeros((2, 1)))
    history = add(history, ids, 2, pairs + pairs.T, np.zeros((5, 1)))
    assert history.ids.tolist() == ids.tolist()
    np.testing.assert_array_equal(history.of(ids)[0], pairs + pairs.T)

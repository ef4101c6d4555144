"""Multi-Krum: hand-computed rounds, Flower's functions, votes, properties and refusals."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.defenses import defenses
from tffl.defenses.multi_krum import MultiKrum

from .byzantine import FROZEN, as_updates, cloud, judge, naive_scores

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
LINE = [[0.0], [1.0], [3.0], [4.5], [50.0]]  # Krum scores 10, 5, 6.25, 14.5 and thousands at f = 1


def create(**options: object) -> MultiKrum:
    return defenses.create("multi-krum", options)


def test_by_hand(server) -> None:
    verdict = judge(create(malicious=1), as_updates(LINE, counts=[1, 1, 2, 4, 8]), server)
    assert verdict.accepted.tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(verdict.weights, [0.125, 0.125, 0.25, 0.5, 0])
    assert verdict.aggregate[FROZEN:] == pytest.approx([0.125 + 0.75 + 2.25])
    assert verdict.aggregate[:FROZEN] == pytest.approx([0.125 + 0.5 + 1.5] * 2)
    assert verdict.threshold == pytest.approx(14.5, rel=1e-5)
    assert verdict.reasons[4].startswith("far from its nearest neighbors: Krum score ")


def test_selected_says_how_many(server) -> None:
    verdict = judge(create(malicious=1, selected=2), as_updates(LINE), server)
    assert verdict.accepted.tolist() == [False, True, True, False, False]
    assert verdict.aggregate[FROZEN:] == pytest.approx([2])
    told_nothing = judge(create(selected=2), as_updates(LINE), server)
    np.testing.assert_array_equal(told_nothing.accepted, verdict.accepted)


def test_told_nothing_by_hand(server) -> None:
    # Scores 10, 5, 6.25, 14.5, thousands: median 10, MAD 4.5.
    verdict = judge(create(k=0.5), as_updates(LINE), server)
    assert verdict.threshold == pytest.approx(10 + 0.5 * 1.4826 * 4.5, rel=1e-5)
    assert verdict.accepted.tolist() == [True, True, True, False, False]
    assert judge(create(), as_updates(LINE), server).accepted.tolist() == [True] * 4 + [False]


@properties
@given(n=st.integers(5, 15), data=st.data(), seed=st.integers(0, 99))
def test_agrees_with_flower(server, n: int, data: st.DataObject, seed: int) -> None:
    aggregate = pytest.importorskip("flwr.server.strategy.aggregate")
    f = data.draw(st.integers(0, (n - 3) // 2))
    m = data.draw(st.integers(1, n))
    rows = cloud(n, 6, seed)
    counts = np.random.default_rng(seed).integers(1, 100, n)
    scores = np.sort(naive_scores(rows, f))
    if m < n and scores[m] <= scores[m - 1] * (1 + 1e-5):
        return  # a tie at the m-th lowest: tffl keeps both, Flower one
    results = [([row], int(count)) for row, count in zip(rows, counts, strict=True)]
    theirs = aggregate.aggregate_krum(results, f, to_keep=m)[0]
    ours = judge(create(malicious=f, selected=m), as_updates(rows, counts=counts), server)
    np.testing.assert_allclose(ours.aggregate[FROZEN:], theirs, atol=1e-5)


@pytest.mark.parametrize("m", [1, 3, 7])
def test_agrees_with_flowers_newer_strategy(server, m: int) -> None:
    flwr = pytest.importorskip("flwr.app")
    module = pytest.importorskip("flwr.serverapp.strategy.multikrum")
    rows = cloud(9, 6, seed=m, attackers=2)
    contents = [
        flwr.RecordDict({"arrays": flwr.ArrayRecord([row.astype(np.float64)])}) for row in rows
    ]
    chosen = module.select_multikrum(contents, num_malicious_nodes=2, num_nodes_to_select=m)
    theirs = sorted(next(i for i, c in enumerate(contents) if c is kept) for kept in chosen)
    verdict = judge(create(malicious=2, selected=m), as_updates(rows), server)
    assert np.flatnonzero(verdict.accepted).tolist() == theirs


@properties
@given(seed=st.integers(0, 99), f=st.integers(0, 3), told=st.booleans())
def test_order_does_not_matter(server, seed: int, f: int, told: bool) -> None:
    rows, order = cloud(9, 6, seed, attackers=f), np.random.default_rng(seed).permutation(9)
    defense = create(malicious=f if told else None)
    one = judge(defense, as_updates(rows), server)
    two = judge(defense, as_updates(rows[order]), server)
    np.testing.assert_array_equal(two.accepted, one.accepted[order])
    np.testing.assert_allclose(two.aggregate[FROZEN:], one.aggregate[FROZEN:], atol=1e-5)
    assert one.weights.sum() == pytest.approx(1)
    if f:
        assert one.convicted[9 - f :].all()
    if told:
        assert one.convicted.sum() == f


def test_no_attacker_expected_is_fedavg(server) -> None:
    round = as_updates(cloud(8, 5), counts=np.arange(1, 9))
    verdict = judge(create(malicious=0), round, server)
    fedavg = judge(defenses.create("none", {}), round, server)
    np.testing.assert_array_equal(verdict.aggregate, fedavg.aggregate)
    assert not verdict.flagged.any()


def test_ties_are_all_kept(server) -> None:
    verdict = judge(create(malicious=3), as_updates([[0.1, 0.2, 0.3]] * 9), server)
    assert verdict.accepted.all()
    square = [[0.1, 0.1], [0.1, -0.1], [-0.1, 0.1], [-0.1, -0.1], [9.0, 9.0]]
    verdict = judge(create(selected=2, malicious=1), as_updates(square), server)
    assert verdict.accepted.tolist() == [True] * 4 + [False]


def test_a_huge_row_hides_nobody(server) -> None:
    rows = cloud(10, 50, attackers=2)
    rows[9] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = judge(create(malicious=2), as_updates(rows), server)
        untold = judge(create(), as_updates(rows), server)
    assert told.accepted.tolist() == untold.accepted.tolist() == [True] * 8 + [False] * 2
    assert np.isfinite(told.scores).all()


def test_rows_that_are_not_finite_count_as_found(server) -> None:
    rows = cloud(9, 5, attackers=1)
    rows[2] = np.inf
    verdict = judge(create(malicious=2), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [2, 8]
    kept = np.delete(rows, 2, axis=0)
    np.testing.assert_allclose(np.delete(verdict.scores, 2), naive_scores(kept, 1), rtol=1e-9)
    nobody = judge(create(malicious=2), as_updates(rows * np.float32(np.nan)), server)
    assert not nobody.accepted.any()
    assert not nobody.aggregate.any()


def test_a_vote_needs_more_than_one_round(server) -> None:
    defense = create(malicious=1, window=3, votes=2)
    honest, attack = cloud(6, 4), cloud(6, 4, attackers=1)
    honest[5] = honest[:5].mean(axis=0)  # in their middle, so that another one is flagged
    state, accepted = defense.init(server), []
    for round, rows in enumerate((attack, honest, attack), start=1):
        verdict, state = defense.judge(as_updates(rows, round=round), server, state)
        accepted.append(bool(verdict.accepted[5]))
    assert accepted == [False, True, False]
    assert create().tracks_clients is False
    assert defense.tracks_clients


def test_non_trainable_columns_do_not_decide(server) -> None:
    round = as_updates(cloud(8, 4))
    wild = round.matrix.copy()
    wild[0, :FROZEN] = 1e6
    one = judge(create(malicious=2), round, server)
    two = judge(create(malicious=2), replace(round, matrix=wild), server)
    np.testing.assert_array_equal(two.scores, one.scores)


def test_refuses_what_cannot_work(layout) -> None:
    create(malicious=1, selected=5).check(5, layout)
    for options, n, message in (
        ({"malicious": 3}, 8, r"multi-krum needs n > 2f \+ 2: with n = 8 .* at most 2"),
        ({}, 2, "2 participants a round are too few"),
        ({"selected": 6}, 5, "selected = 6 is not allowed with 5 participants"),
        ({"votes": 2}, 9, "votes = 2 is not allowed"),
    ):
        with pytest.raises(UsageError, match=message):
            create(**options).check(n, layout)
    for options in ({"selected": 0}, {"malicious": -1}, {"malicious": 1.5}, {"k": "inf"}):
        with pytest.raises(UsageError, match=r"^defense\."):
            create(**options)

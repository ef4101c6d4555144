"""Bucketing: who meets in a bucket, what it counts, and what may stand behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.core.updates import LARGEST_CLAIM
from tffl.defenses import create_defense
from tffl.defenses.bucketing import Bucketing

from .byzantine import FROZEN, as_updates, cloud, judge

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)


@properties
@given(n=st.integers(1, 30), s=st.integers(1, 7), round=st.integers(1, 50))
def test_buckets_are_a_partition(server, n: int, s: int, round: int) -> None:
    counts = np.arange(1, n + 1)
    mixture = Bucketing(bucket=s).mix(as_updates(np.zeros((n, 1)), counts, round=round), server)
    sizes = np.bincount(mixture.owner)
    assert len(sizes) == -(-n // s) == len(mixture.mixing) == len(mixture.sample_counts)
    assert sorted(sizes.tolist())[1:] == [s] * (len(sizes) - 1)
    assert mixture.sample_counts.sum() == counts.sum()
    for bucket, weights in enumerate(mixture.mixing):
        members = np.flatnonzero(mixture.owner == bucket)
        assert np.flatnonzero(weights).tolist() == members.tolist()
        np.testing.assert_allclose(weights[members], 1 / len(members))
        assert mixture.sample_counts[bucket] == counts[members].sum()


def test_alone_it_stands_before_fedavg(server) -> None:
    rows, counts = cloud(6, 4), np.array([1, 2, 3, 4, 5, 6])
    round = as_updates(rows, counts)
    owner = Bucketing().mix(round, server).owner
    verdict = judge(create_defense("bucketing", {}), round, server)
    shares = [counts[owner == owner[i]].sum() / 21 / 2 for i in range(6)]
    np.testing.assert_allclose(verdict.weights, shares)
    np.testing.assert_allclose(verdict.aggregate, shares @ round.matrix, atol=1e-6)


def test_buckets_of_one_change_nothing(server) -> None:
    round = as_updates(cloud(9, 4, attackers=2), counts=np.arange(1, 10))
    options = {"bucket": 1, "malicious": 2}
    one = judge(create_defense("bucketing+multi-krum", options), round, server)
    two = judge(create_defense("multi-krum", {"malicious": 2}), round, server)
    np.testing.assert_array_equal(one.convicted, two.convicted)
    np.testing.assert_allclose(one.weights, two.weights)
    np.testing.assert_allclose(one.aggregate, two.aggregate, rtol=1e-6)


def test_who_meets_depends_on_seed_and_round_alone(server) -> None:
    rows = np.zeros((20, 1))

    def owner(round: int, seed: int = 0) -> list[int]:
        owners = Bucketing().mix(as_updates(rows, round=round), replace(server, seed=seed)).owner
        return owners.tolist()

    assert owner(1) == owner(1)
    assert len({tuple(owner(1)), tuple(owner(2)), tuple(owner(1, seed=1))}) == 3


def test_a_client_is_judged_by_its_bucket(server) -> None:
    round = as_updates(cloud(12, 6, attackers=1))
    owner = Bucketing().mix(round, server).owner
    verdict = judge(create_defense("bucketing+multi-krum", {"malicious": 1}), round, server)
    np.testing.assert_array_equal(verdict.convicted, owner == owner[11])
    assert verdict.weights[owner == owner[11]].tolist() == [0, 0]
    honest = round.matrix[owner != owner[11], FROZEN:]
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], honest.mean(axis=0), atol=1e-5)


def test_a_fraction_is_of_the_clients_not_of_the_buckets(server, layout) -> None:
    rows = cloud(20, 6, attackers=2)
    by_count = judge(create_defense("bucketing+krum", {"malicious": 2}), as_updates(rows), server)
    by_share = judge(create_defense("bucketing+krum", {"malicious": 0.1}), as_updates(rows), server)
    np.testing.assert_array_equal(by_share.scores, by_count.scores)
    np.testing.assert_array_equal(by_share.convicted, by_count.convicted)
    create_defense("bucketing+krum", {"malicious": 0.15}).check(20, layout)  # 3 of 10 buckets
    with pytest.raises(UsageError, match="f = 4 is too many"):  # not a fifth of 10
        create_defense("bucketing+krum", {"malicious": 0.2}).check(20, layout)


def test_rows_that_are_not_finite_are_in_no_bucket(server) -> None:
    rows = cloud(11, 6)
    rows[4] = np.inf
    verdict = judge(create_defense("bucketing+krum", {}), as_updates(rows), server)
    assert verdict.convicted[4]
    assert verdict.weights[4] == 0
    assert np.isfinite(verdict.aggregate).all()
    nobody = judge(create_defense("bucketing+krum", {}), as_updates(rows * np.inf), server)
    assert not nobody.accepted.any()
    assert not nobody.aggregate.any()


def test_the_defense_behind_it_is_checked_for_buckets(layout) -> None:
    create_defense("bucketing+krum", {"malicious": 1}).check(10, layout)
    message = r"krum needs n > 2f \+ 2: with n = 5 .* \(of 10 updates, it sees 5"
    for malicious in (2, 0.2):
        with pytest.raises(UsageError, match=message):
            create_defense("bucketing+krum", {"malicious": malicious}).check(10, layout)
    with pytest.raises(UsageError, match="bucket = 5 is not allowed with 5 participants"):
        create_defense("bucketing", {"bucket": 5}).check(5, layout)


def test_refuses_what_remembers_clients() -> None:
    create_defense("bucketing+multi-krum", {})
    for name, options in (
        ("bucketing+multi-krum", {"window": 3, "votes": 2}),
        ("bucketing+nnm+multi-krum", {"window": 3, "votes": 2}),
        ("nnm+bucketing+multi-krum", {"window": 3, "votes": 2}),
    ):
        with pytest.raises(UsageError, match="bucketing cannot stand before a defense that rem"):
            create_defense(name, options)


def test_may_stand_behind_nnm(server) -> None:
    round = as_updates(cloud(20, 6, attackers=2))
    defense = create_defense("nnm+bucketing+krum", {"malicious": 2})
    verdict = judge(defense, round, server)
    assert verdict.weights.sum() == pytest.approx(1)
    assert verdict.weights[18:].sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(verdict.weights @ round.matrix, verdict.aggregate, atol=1e-4)


def test_the_largest_claims_fit_into_one_bucket(server) -> None:
    counts = np.full(6, LARGEST_CLAIM)
    verdict = judge(
        create_defense("bucketing", {"bucket": 3}), as_updates(cloud(6, 4), counts), server
    )
    np.testing.assert_allclose(verdict.weights, 1 / 6)


@pytest.mark.parametrize("name", ["bucketing", "nnm", "nnm+krum", "bucketing+median"])
def test_nobody_is_averaged_where_no_row_is_finite(server, name: str) -> None:
    verdict = judge(create_defense(name, {}), as_updates(np.full((6, 4), np.nan)), server)
    assert not verdict.aggregate.any() and not verdict.weights.any()
    assert verdict.convicted.all() and not verdict.accepted.any()
    assert all("NaN or infinity" in reason for reason in verdict.reasons)

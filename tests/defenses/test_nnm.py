"""Nearest-neighbor mixing: hand-computed rounds, a slow reference, and what stands behind it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.defenses import create_defense
from tffl.defenses.nnm import NearestNeighborMixing

from .byzantine import FROZEN, as_updates, cloud, judge, naive_scores

properties = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
LINE = [[0.0], [1.0], [3.0], [6.0], [50.0]]


def naive(rows: np.ndarray, f: int) -> np.ndarray:
    """Returns the mixtures, in plain loops."""
    mixed = []
    for i, x in enumerate(rows.astype(float)):
        order = sorted(range(len(rows)), key=lambda j: (j != i, ((rows[j] - x) ** 2).sum(), j))
        mixed.append(np.mean([rows[j] for j in order[: len(rows) - f]], axis=0, dtype=float))
    return np.array(mixed)


def mixtures(round, server, **options: object) -> np.ndarray:
    mixture = NearestNeighborMixing(**options).mix(round, server)
    return mixture.mixing @ round.matrix.astype(np.float64)


def test_by_hand(server) -> None:
    # f = 2: means of three. 0, 1, 3 mix; 3 is nearer to 1 and 0 than to 6 (a tie: smaller id).
    got = mixtures(as_updates(LINE), server, malicious=2)[:, FROZEN]
    np.testing.assert_allclose(got, [4 / 3, 4 / 3, 4 / 3, 10 / 3, 59 / 3])


def test_alone_it_stands_before_fedavg(server) -> None:
    round = as_updates(LINE, counts=[1, 1, 2, 4, 8])
    verdict = judge(create_defense("nnm", {"malicious": 2}), round, server)
    expected = np.average([4 / 3, 4 / 3, 4 / 3, 10 / 3, 59 / 3], weights=[1, 1, 2, 4, 8])
    assert verdict.aggregate[FROZEN:] == pytest.approx([expected], rel=1e-5)
    assert verdict.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(verdict.weights @ round.matrix, verdict.aggregate, rtol=1e-5)
    assert verdict.accepted.all()


@properties
@given(n=st.integers(1, 12), data=st.data(), seed=st.integers(0, 99))
def test_agrees_with_plain_loops(server, n: int, data: st.DataObject, seed: int) -> None:
    f = data.draw(st.integers(0, (n - 1) // 2))
    rows = cloud(n, 5, seed)
    got = mixtures(as_updates(rows), server, malicious=f)[:, FROZEN:]
    np.testing.assert_allclose(got, naive(rows, f), atol=1e-6)


@properties
@given(seed=st.integers(0, 99), f=st.integers(0, 4))
def test_order_and_rows_of_mixing(server, seed: int, f: int) -> None:
    rows, order = cloud(9, 6, seed), np.random.default_rng(seed).permutation(9)
    mixing = NearestNeighborMixing(malicious=f).mix(as_updates(rows), server).mixing
    other = NearestNeighborMixing(malicious=f).mix(as_updates(rows[order]), server).mixing
    np.testing.assert_array_equal(other, mixing[np.ix_(order, order)])
    np.testing.assert_allclose(mixing.sum(axis=1), 1)
    assert (np.diag(mixing) > 0).all()
    assert (np.count_nonzero(mixing, axis=1) == 9 - f).all()


def test_told_nothing_bears_the_most(server) -> None:
    for n in (9, 10):
        mixing = NearestNeighborMixing().mix(as_updates(cloud(n, 3)), server).mixing
        assert (np.count_nonzero(mixing, axis=1) == n // 2 + 1).all()


def test_identical_rows_include_themselves(server) -> None:
    mixing = NearestNeighborMixing(malicious=3).mix(as_updates([[0.1, 0.2]] * 8), server).mixing
    assert (np.diag(mixing) > 0).all()


def test_before_krum(server) -> None:
    rows = cloud(10, 8, attackers=2)
    verdict = judge(create_defense("nnm+krum", {"malicious": 2}), as_updates(rows), server)
    mixed = naive(rows, 2)
    scores = naive_scores(mixed, 2)
    np.testing.assert_allclose(verdict.scores, scores, rtol=1e-4, atol=1e-6)
    assert np.flatnonzero(verdict.accepted).tolist() == [np.argmin(scores)]
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], mixed[np.argmin(scores)], atol=1e-5)
    assert verdict.convicted[8:].all()
    assert (verdict.weights > 0).sum() == 8  # everybody whom the winner's mixture holds


def test_a_huge_row_spoils_no_other_mixture(server) -> None:
    rows = cloud(10, 50)
    rows[9] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(create_defense("nnm+krum", {"malicious": 1}), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [9]
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], rows[:9].mean(axis=0), atol=1e-5)


def test_rows_that_are_not_finite_count_as_found(server) -> None:
    rows = cloud(10, 8, attackers=2)
    rows[9, 3] = np.nan
    verdict = judge(create_defense("nnm+multi-krum", {"malicious": 2}), as_updates(rows), server)
    assert np.flatnonzero(verdict.convicted).tolist() == [8, 9]
    assert verdict.weights[9] == 0
    assert np.isfinite(verdict.aggregate).all()
    kept = judge(create_defense("nnm+multi-krum", {"malicious": 1}), as_updates(rows[:9]), server)
    np.testing.assert_allclose(verdict.aggregate[FROZEN:], kept.aggregate[FROZEN:], rtol=1e-5)


def test_refuses_what_cannot_work(layout) -> None:
    create_defense("nnm", {"malicious": 4}).check(9, layout)
    with pytest.raises(UsageError, match=r"nnm needs n > 2f: with n = 8 .* at most 3"):
        create_defense("nnm", {"malicious": 4}).check(8, layout)
    with pytest.raises(UsageError, match=r"krum needs n > 2f \+ 2"):
        create_defense("nnm+krum", {"malicious": 4}).check(9, layout)
    with pytest.raises(UsageError, match="krum cannot stand before another defense"):
        create_defense("krum+nnm", {})


def test_says_what_it_is_told() -> None:
    assert create_defense("nnm", {"malicious": 2}).declared_knowledge() == ("told malicious = 2",)
    assert create_defense("nnm+krum", {"malicious": 0.2}).declared_knowledge() == (
        "told malicious = 0.2",
    )
    assert create_defense("nnm+krum", {}).declared_knowledge() == ()

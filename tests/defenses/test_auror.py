"""AUROR: the exact split against brute force and scikit-learn, then whole rounds."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, defenses
from tffl.defenses.auror import suspicions, two_means

from .conftest import LAYOUT

FROZEN = ~LAYOUT.trainable
columns = arrays(
    np.float32,
    st.tuples(st.integers(3, 9), st.integers(1, 4)),
    elements=st.integers(-40, 40).map(lambda i: i / 8),
)


@pytest.fixture
def server() -> Server:
    return Server(model=cast("object", None), layout=LAYOUT, clients=40, seed=0)


def make(matrix: object) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    n = len(matrix)
    start = np.zeros(LAYOUT.size, np.float32)
    return Updates(1, np.arange(n), np.ones(n, np.int64), start, matrix, LAYOUT)


def judge(updates: Updates, server: Server, **options: object) -> Verdict:
    defense = defenses.create("auror", options)
    return defense.judge(updates, server, defense.init(server))[0]


def rows(seed: int, n: int = 12, malicious: int = 3, shift: float = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, LAYOUT.size))
    matrix[:malicious] += shift * rng.choice([-1, 1], LAYOUT.size)
    return matrix.astype(np.float32)


def brute(column: np.ndarray) -> tuple[float, dict[int, float]]:
    """The least squared error, and the gap of every split of the sorted column that reaches it."""
    column = np.sort(column.astype(np.float64))
    costs, gaps = {}, {}
    for k in range(1, len(column)):
        low, high = column[:k], column[k:]
        costs[k] = ((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum()
        gaps[k] = high.mean() - low.mean()
    best = min(costs.values())
    return best, {k: gaps[k] for k, cost in costs.items() if cost <= best + 1e-9}


def naive(matrix: np.ndarray, alpha: float, spread: bool, tau: float) -> tuple[list, list]:
    """Scores and flags by the definition, client by client; ties of the split are not allowed."""
    n = len(matrix)
    suspect, indicative = [0] * n, 0
    for column in matrix[:, ~FROZEN].T:
        error, gaps = brute(column)
        ((k, gap),) = gaps.items()
        if gap <= alpha * (np.sqrt(error / (n - 2)) if spread else 1):
            continue
        indicative += 1
        order = np.argsort(column)
        minority = order[:k] if k < n - k else order[k:] if k > n - k else []
        for client in minority:
            suspect[client] += 1
    scores = [count / indicative if indicative else 0.0 for count in suspect]
    return scores, [score > tau for score in scores]


def test_split_by_hand() -> None:
    ranked = np.array([[0.0, 5, 0], [1, 5, 0], [9, 5, 0], [10, 5, 8]])
    split = two_means(ranked)
    assert split.lower.tolist()[0::2] == [2, 3]
    np.testing.assert_allclose(split.gap, [9, 0, 8])
    np.testing.assert_allclose(split.error, [1, 0, 0])


@settings(deadline=None)
@given(matrix=columns)
def test_split_is_the_best_of_all(matrix: np.ndarray) -> None:
    split = two_means(np.sort(matrix, axis=0))
    for j, column in enumerate(matrix.T):
        error, gaps = brute(column)
        assert split.error[j] == pytest.approx(error, abs=1e-9)
        assert split.lower[j] in gaps
        assert split.gap[j] == pytest.approx(gaps[split.lower[j]], abs=1e-9)


def test_split_agrees_with_kmeans() -> None:
    from sklearn.cluster import KMeans

    matrix = np.random.default_rng(3).normal(size=(15, 20)) ** 3
    split = two_means(np.sort(matrix, axis=0))
    for j, column in enumerate(matrix.T):
        found = KMeans(2, n_init=50, random_state=0).fit(column[:, None])
        assert split.error[j] == pytest.approx(found.inertia_)
        centers = found.cluster_centers_.ravel()
        assert split.gap[j] == pytest.approx(abs(centers[0] - centers[1]))
        assert split.lower[j] == (found.labels_ == centers.argmin()).sum()


def test_suspects_by_hand() -> None:
    # Columns: one high; two low; two against two with one in between; all equal; a high pair.
    matrix = np.array(
        [
            [0.0, 9, 0, 7, 0],
            [0.0, 9, 0, 7, 0],
            [0.0, 9, 9, 7, 0],
            [1.0, 0, 9, 7, 9],
            [9.0, 0, 0, 7, 9],
        ]
    )
    counts, indicative = suspicions(matrix, alpha=5, spread=False)
    assert indicative == 4
    assert counts.tolist() == [0, 0, 1, 3, 3]
    # The first column: means 0.25 and 9, W = 0.75, spread √(0.75 / 3) = 0.5, gap 17.5 spreads.
    assert suspicions(matrix[:, :1], alpha=17.4, spread=True)[1] == 1
    assert suspicions(matrix[:, :1], alpha=17.6, spread=True)[1] == 0


def test_equal_halves_have_no_minority() -> None:
    counts, indicative = suspicions(np.array([[0.0], [0], [9], [9]]), alpha=1, spread=False)
    assert (counts.tolist(), indicative) == ([0, 0, 0, 0], 1)


@pytest.mark.parametrize("unit", ["spread", "absolute"])
@pytest.mark.parametrize("seed", range(5))
def test_rounds_agree_with_the_definition(server, seed: int, unit: str) -> None:
    matrix = rows(seed, shift=4)
    verdict = judge(make(matrix), server, unit=unit, alpha=4, tau=0.4)
    scores, flags = naive(matrix, 4, unit == "spread", 0.4)
    np.testing.assert_allclose(verdict.scores, scores)
    assert verdict.flagged.tolist() == flags


def test_finds_attackers_and_averages_the_others(server) -> None:
    matrix = rows(0)
    verdict = judge(make(matrix), server)
    assert verdict.accepted.tolist() == [False] * 3 + [True] * 9
    np.testing.assert_allclose(verdict.aggregate, matrix[3:].mean(axis=0), rtol=1e-5)
    assert (
        verdict.reasons[0] == "in the minority in 100.0% of the indicative coordinates, above 50.0%"
    )


def test_final_layer_alone_counts_if_told(server) -> None:
    matrix = rows(1, shift=0)
    matrix[0, :4] += 100
    matrix[1, 6:] += 100
    assert judge(make(matrix), server, layers="final").flagged.nonzero()[0].tolist() == [1]
    before = judge(make(matrix), server, layers="final").scores
    matrix[:, :6] = 0
    np.testing.assert_array_equal(judge(make(matrix), server, layers="final").scores, before)


def test_statistics_that_nothing_trains_do_not_count(server) -> None:
    matrix = rows(2)
    before = judge(make(matrix), server).scores
    matrix[:, FROZEN] = np.random.default_rng(0).normal(size=(len(matrix), 2)) * 1e6
    np.testing.assert_array_equal(judge(make(matrix), server).scores, before)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_clients_does_not_matter(server, seed: int) -> None:
    matrix = rows(seed, shift=3)
    order = np.random.default_rng(seed).permutation(len(matrix))
    one, other = (judge(make(m), server, alpha=3) for m in (matrix, matrix[order]))
    np.testing.assert_allclose(other.scores, one.scores[order])


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**10])
def test_relative_gaps_do_not_depend_on_scale(server, factor: float) -> None:
    matrix = rows(4, shift=4)
    one = judge(make(matrix), server, alpha=4)
    other = judge(make(matrix * np.float32(factor)), server, alpha=4)
    np.testing.assert_array_equal(other.scores, one.scores)
    absolute = [judge(make(matrix * f), server, unit="absolute").scores.any() for f in (1e-3, 10)]
    assert absolute == [False, True]


@pytest.mark.parametrize("unit", ["spread", "absolute"])
def test_equal_updates_accuse_nobody(server, unit: str) -> None:
    value = np.random.default_rng(0).normal(size=LAYOUT.size).astype(np.float32)
    verdict = judge(make([value] * 7), server, unit=unit, alpha=0)
    assert not verdict.scores.any()
    assert verdict.accepted.all()


def test_rows_that_are_not_finite_are_rejected_and_do_not_count(server) -> None:
    matrix = rows(5)
    clean = judge(make(matrix), server)
    dirty = np.insert(matrix, 4, np.nan, axis=0)
    verdict = judge(make(dirty), server)
    np.testing.assert_array_equal(np.delete(verdict.scores, 4), clean.scores)
    assert not verdict.accepted[4]
    np.testing.assert_allclose(verdict.aggregate, clean.aggregate)


def test_an_enormous_row_is_found_quietly(server) -> None:
    matrix = rows(6, malicious=0)
    matrix[7] = 1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(make(matrix), server)
    assert verdict.flagged.nonzero()[0].tolist() == [7]
    assert verdict.scores[7] == 1


def test_too_few_finite_rows_accuse_nobody(server) -> None:
    matrix = rows(7, n=4)
    matrix[:2] = np.inf
    verdict = judge(make(matrix), server)
    assert verdict.accepted.tolist() == [False, False, True, True]
    matrix[:] = np.inf
    assert np.isnan(judge(make(matrix), server).threshold)


def test_blocks_add_up(server, monkeypatch) -> None:
    whole = judge(make(rows(8, shift=3)), server, alpha=3).scores
    for width in (1, 3):
        monkeypatch.setattr("tffl.defenses.auror.WIDTH", width)
        np.testing.assert_array_equal(judge(make(rows(8, shift=3)), server, alpha=3).scores, whole)


def test_a_larger_alpha_leaves_fewer_coordinates() -> None:
    matrix = np.random.default_rng(9).normal(size=(10, 500))
    chosen = [suspicions(matrix, alpha, True)[1] for alpha in (0, 3, 4, 6, 20)]
    assert chosen[0] == 500
    assert all(more > fewer for more, fewer in pairwise(chosen))


def test_refuses_two_participants(layout) -> None:
    defenses.create("auror", {}).check(3, layout)
    with pytest.raises(UsageError, match="auror needs at least 3 participants a round, not 2"):
        defenses.create("auror", {}).check(2, layout)


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", -1), ("alpha", "inf"), ("tau", 1), ("unit", "std")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^defense\.{option} = .* is not allowed"):
        defenses.create("auror", {option: value})

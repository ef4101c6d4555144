"""FLAME: the majority cluster against brute force, clipping and noise against the formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import Server, Verdict, create_defense
from tffl.defenses.flame import Flame, majority

from .conftest import LAYOUT

TRAINABLE = LAYOUT.trainable
fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


def make(matrix: object, ids: object = None, round: int = 1) -> Updates:
    matrix = np.asarray(matrix, dtype=np.float32)
    ids = np.arange(len(matrix)) if ids is None else np.asarray(ids)
    counts = np.arange(1, len(matrix) + 1)  # claimed, and not to matter
    start = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)
    return Updates(round, ids, counts, start, matrix, LAYOUT)


def rows(seed: int, n: int = 7) -> np.ndarray:
    """Honest rows around a direction, the last two around another."""
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(2, LAYOUT.size))
    which = np.where(np.arange(n) < n - 2, 0, 1)
    matrix = ways[which] + 0.3 * rng.normal(size=(n, LAYOUT.size))
    return (matrix * rng.uniform(0.5, 2, size=(n, 1))).astype(np.float32)


def judge(defense: Flame, updates: Updates, server: Server) -> Verdict:
    verdict, state = defense.judge(updates, server, defense.init(server))
    assert state == {}
    return verdict


def smallest_majority(distances: np.ndarray) -> np.ndarray:
    """The first threshold at which chains of near points join more than half of all."""
    n = len(distances)
    for threshold in np.unique(distances):
        near = distances <= threshold
        reach = np.linalg.matrix_power(near.astype(float), n) > 0
        if reach.sum(axis=1).max() > n // 2:
            return reach[reach.sum(axis=1).argmax()]
    raise AssertionError


@given(data=st.data(), n=st.integers(3, 10), levels=st.integers(1, 40))
@settings(deadline=None, max_examples=150)
def test_hdbscan_is_the_smallest_majority_of_single_linkage(data, n: int, levels: int) -> None:
    """Few levels make many ties."""
    half = data.draw(arrays(np.int64, (n, n), elements=st.integers(0, levels)))
    distances = np.triu(half, 1) / levels
    distances = distances + distances.T
    before = distances.copy()
    inside = majority(distances)
    np.testing.assert_array_equal(inside, smallest_majority(distances))
    np.testing.assert_array_equal(distances, before)
    order = np.random.default_rng(levels).permutation(n)
    np.testing.assert_array_equal(majority(distances[np.ix_(order, order)]), inside[order])
    assert inside.sum() > n // 2


def test_counting_oneself_as_a_neighbor_makes_no_difference() -> None:
    from sklearn.cluster import HDBSCAN

    points = np.random.default_rng(0).normal(size=(40, 9, 2))
    for cloud in points:
        distances = np.linalg.norm(cloud[:, None] - cloud, axis=2)
        options = {"min_cluster_size": 5, "metric": "precomputed", "copy": True}
        clustering = HDBSCAN(min_samples=2, allow_single_cluster=True, **options)
        labels = clustering.fit_predict(distances)
        np.testing.assert_array_equal(majority(distances), labels >= 0)


def test_majority_by_hand() -> None:
    # Gaps 1, 1, 2, 3, 9: four of six points hang together from distance 2 on.
    points = np.array([0.0, 1.0, 2.0, 4.0, 7.0, 16.0])
    assert majority(np.abs(points[:, None] - points)).tolist() == [True] * 4 + [False] * 2
    assert majority(np.zeros((5, 5))).all()
    assert majority(np.ones((2, 2))).all() and majority(np.zeros((1, 1))).all()


@pytest.mark.parametrize("angles", ["updates", "models"])
@pytest.mark.parametrize("seed", range(4))
def test_against_numpy(server: Server, angles: str, seed: int) -> None:
    matrix = rows(seed)
    updates = make(matrix)
    verdict = judge(Flame(noise=0, angles=angles), updates, server)

    exact = matrix.astype(np.float64)
    vectors = exact[:, TRAINABLE] + (updates.start[TRAINABLE] if angles == "models" else 0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, 0)
    inside = smallest_majority(np.round(distances, 12))
    norms = np.linalg.norm(exact[:, TRAINABLE], axis=1)
    clipped = exact * np.minimum(1, np.median(norms) / norms)[:, None]
    chosen = np.flatnonzero(inside)
    scores = [np.mean([distances[i, j] for j in chosen if j != i]) for i in range(7)]

    np.testing.assert_array_equal(verdict.accepted, inside)
    np.testing.assert_array_equal(verdict.flagged, ~inside)
    np.testing.assert_allclose(verdict.weights, inside / inside.sum())
    np.testing.assert_allclose(verdict.scores, scores, atol=1e-10)
    np.testing.assert_allclose(
        verdict.aggregate, np.mean([clipped[i] for i in chosen], axis=0), atol=1e-6
    )
    assert [bool(reason) for reason in verdict.reasons] == (~inside).tolist()


def test_the_other_direction_is_rejected(server: Server) -> None:
    verdict = judge(Flame(), make(rows(1)), server)
    assert verdict.convicted[-2:].all()
    assert verdict.scores[-2:].min() > verdict.scores[:-2].max()
    assert "outside the majority, at a mean cosine distance of" in verdict.reasons[-1]


def test_a_scaled_row_of_the_right_direction_moves_the_mean_no_further(server: Server) -> None:
    matrix = np.tile(rows(2, 3)[:1], (5, 1))
    plain = judge(Flame(noise=0), make(matrix), server)
    matrix[4] *= 1e30
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(Flame(noise=0), make(matrix), server)
    assert verdict.accepted.all()
    np.testing.assert_allclose(verdict.aggregate, plain.aggregate, rtol=1e-5)
    np.testing.assert_allclose(verdict.scores, 0, atol=1e-12)


def test_noise_has_its_size_falls_on_trainable_weights_and_repeats(server: Server) -> None:
    layout = WeightLayout(
        (Entry("a/kernel", (40_000,), True), Entry("bn/mean", (9,), False), Entry("b", (20,), True))
    )
    matrix = np.full((4, layout.size), 0.5, np.float32)
    updates = replace(make(matrix), layout=layout, start=np.zeros(layout.size, np.float32))
    quiet = judge(Flame(noise=0), updates, server).aggregate
    noisy = judge(Flame(noise=0.01), updates, server).aggregate
    noise = (noisy - quiet)[layout.trainable]
    assert not (noisy - quiet)[~layout.trainable].any()
    sigma = 0.01 * 0.5 * np.sqrt(40_020)  # S is the common norm over trainable columns
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean()) < 5 * sigma / 200
    np.testing.assert_array_equal(judge(Flame(noise=0.01), updates, server).aggregate, noisy)
    for other in (replace(updates, round=2), updates):
        changed = replace(server, seed=server.seed + (other is updates))
        assert (judge(Flame(noise=0.01), other, changed).aggregate != noisy).any()


@pytest.mark.parametrize("column", [0, 4])
@pytest.mark.parametrize("poison", [np.nan, -np.inf])
def test_rows_that_are_not_finite_count_for_nothing(server: Server, column, poison) -> None:
    matrix = rows(3)
    without = judge(Flame(), make(matrix), server)
    bad = np.vstack([matrix, 50 * matrix[:2]])
    bad[7:, column] = poison
    verdict = judge(Flame(), make(bad), server)
    np.testing.assert_array_equal(verdict.accepted[:7], without.accepted)
    np.testing.assert_array_equal(verdict.aggregate, without.aggregate)
    assert verdict.flagged[7:].all() and (verdict.scores[7:] == np.inf).all()
    assert verdict.reasons[8] == "the update holds NaN or infinity"
    nobody = judge(Flame(), make(np.full((3, LAYOUT.size), poison)), server)
    assert nobody.flagged.all() and not nobody.weights.any() and not nobody.aggregate.any()


def test_equal_zero_and_few_rows(server: Server) -> None:
    equal = judge(Flame(noise=0), make(np.tile(rows(4, 1), (6, 1))), server)
    assert equal.accepted.all()
    still = judge(Flame(), make(np.zeros((5, LAYOUT.size))), server)
    assert still.accepted.all() and not still.aggregate.any()
    matrix = rows(5)
    matrix[1:, 0] = np.nan
    alone = judge(Flame(noise=0), make(matrix), server)
    assert alone.weights.tolist() == [1] + [0] * 6 and alone.scores[0] == 0
    np.testing.assert_array_equal(alone.aggregate, matrix[0])


@fixtures
@given(
    matrix=arrays(np.float32, (6, LAYOUT.size), elements=st.integers(-9, 9)),
    seed=st.integers(0, 9),
)
def test_the_order_of_clients_does_not_matter(server: Server, matrix, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(6)
    one = judge(Flame(), make(matrix), server)
    other = judge(Flame(), make(matrix[order], order), server)
    np.testing.assert_array_equal(other.accepted, one.accepted[order])
    np.testing.assert_allclose(other.scores, one.scores[order], atol=1e-11)
    np.testing.assert_allclose(other.aggregate, one.aggregate, atol=1e-5)
    assert one.weights.sum() == pytest.approx(1)


def test_refusals(layout: WeightLayout) -> None:
    Flame().check(3, layout)
    with pytest.raises(UsageError, match="at least 3 participants a round, not 2"):
        Flame().check(2, layout)
    with pytest.raises(UsageError, match=r"defense\.noise"):
        create_defense("flame", {"noise": -1})
    assert not create_defense("flame", {}).tracks_clients

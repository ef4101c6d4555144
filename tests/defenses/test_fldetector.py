"""FLDetector: L-BFGS against dense BFGS, clusters against brute force, rounds against loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tffl.core import seeds
from tffl.core.clusters import cluster_threshold, two_means
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.defenses import Server, create_defense
from tffl.defenses.base import State
from tffl.defenses.fldetector import FLDetector
from tffl.defenses.parts.lbfgs import hessian_product

from .conftest import LAYOUT

D = LAYOUT.size
TRAINABLE = LAYOUT.trainable
EVERYWHERE = [slice(0, 5), slice(5, D)]
CENTERS = np.random.default_rng(8).normal(size=(6, D))


def dense_bfgs(pairs: list[tuple[np.ndarray, np.ndarray]], d: int = D) -> np.ndarray:
    """The textbook recursion, from σI; zeros without a pair of positive curvature."""
    pairs = [(s, y) for s, y in pairs if s @ y > 0]
    if not pairs:
        return np.zeros((d, d))
    s, y = pairs[-1]
    b = (y @ s) / (s @ s) * np.eye(d)
    for s, y in pairs:
        b = b - np.outer(b @ s, b @ s) / (s @ b @ s) + np.outer(y, y) / (y @ s)
    return b


def quadratic(seed: int, d: int = D) -> np.ndarray:
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return basis @ np.diag(np.linspace(0.5, 5, d)) @ basis.T


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_lbfgs_is_bfgs(k: int) -> None:
    rng = np.random.default_rng(k)
    steps = rng.normal(size=(k, D)) * 10.0 ** rng.uniform(-6, 3, size=(k, 1))
    turns = steps @ quadratic(k) * rng.uniform(0.5, 2, size=(k, 1))
    vector = rng.normal(size=D)
    expected = dense_bfgs(list(zip(steps, turns, strict=True))) @ vector
    product = hessian_product(steps, turns, vector, EVERYWHERE)
    np.testing.assert_allclose(product, expected, rtol=1e-7, atol=1e-9)
    secant = hessian_product(steps, turns, steps[-1], EVERYWHERE)
    np.testing.assert_allclose(secant, turns[-1], rtol=1e-7)


def test_degenerate_pairs_are_skipped() -> None:
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(6, D))
    turns = steps @ quadratic(0)
    steps[0], turns[0] = 0, 0  # never filled
    steps[2] = 0  # the model stood still
    turns[3] *= -1  # negative curvature
    turns[5] = 0  # flat, and the last
    vector = rng.normal(size=D)
    expected = dense_bfgs([(steps[1], turns[1]), (steps[4], turns[4])]) @ vector
    np.testing.assert_allclose(
        hessian_product(steps, turns, vector, EVERYWHERE), expected, rtol=1e-9
    )
    bad = [0, 2, 3, 5]
    assert not hessian_product(steps[bad], turns[bad], vector, EVERYWHERE).any()
    steps[4, 0] = np.inf
    assert not hessian_product(steps, turns, vector, EVERYWHERE).any()


def test_the_same_pair_twice_says_no_more() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(size=(2, D))
    turns, vector = steps @ quadratic(1), rng.normal(size=D)
    once = hessian_product(steps, turns, vector, EVERYWHERE)
    again = hessian_product(steps[[0, 1, 1]], turns[[0, 1, 1]], vector, EVERYWHERE)
    np.testing.assert_allclose(again, once, rtol=1e-8)


def test_columns_outside_the_blocks_do_not_count() -> None:
    rng = np.random.default_rng(2)
    steps, vector = rng.normal(size=(3, D)), rng.normal(size=D)
    turns = steps @ quadratic(2)
    inside = slice(3, 9)
    product = hessian_product(steps, turns, vector, [slice(3, 5), slice(5, 9)])
    alone = hessian_product(steps[:, inside], turns[:, inside], vector[inside], [slice(0, 6)])
    np.testing.assert_allclose(product[inside], alone, rtol=1e-12)
    assert not product[:3].any() and not product[9:].any()


def best_split(values: np.ndarray) -> tuple[float, float, int]:
    ranked = np.sort(values)

    def spread(part: np.ndarray) -> float:
        return float(((part - part.mean()) ** 2).sum())

    splits = [spread(ranked[:k]) + spread(ranked[k:]) for k in range(1, len(ranked))]
    return spread(ranked), min(splits), int(np.argmin(splits)) + 1


@given(values=arrays(np.float64, st.integers(2, 12), elements=st.floats(-10, 10)))
@settings(deadline=None)
def test_two_means_is_exact(values: np.ndarray) -> None:
    whole, split, lower = two_means(values)
    expected = best_split(values)
    assert whole == pytest.approx(expected[0], abs=1e-9)
    assert split == pytest.approx(expected[1], abs=1e-9)
    ranked = np.sort(values)
    cost = sum(part.var() * len(part) for part in (ranked[:lower], ranked[lower:]))
    assert cost == pytest.approx(expected[1], abs=1e-9)


def naive_threshold(scores: np.ndarray, generator: np.random.Generator) -> float:
    """Gap(1) >= Gap(2) − s_2 means one cluster."""
    unit = (scores - scores.min()) / (scores.max() - scores.min())
    draws = [best_split(row) for row in generator.random((10, len(scores)))]
    first = np.mean([math.log(w) for w, _, _ in draws]) - math.log(best_split(unit)[0])
    second = np.mean([math.log(w) for _, w, _ in draws]) - math.log(best_split(unit)[1])
    s_2 = np.std([math.log(w) for _, w, _ in draws]) * math.sqrt(1 + 1 / 10)
    if first >= second - s_2:
        return math.nan
    return float(np.sort(scores)[best_split(unit)[2] - 1])


def test_clusters_against_loops() -> None:
    verdicts = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = rng.normal(1, 0.1, size=rng.integers(4, 20))
        scores[:2] += rng.choice([0, 0.3, 0.6])
        found = cluster_threshold(scores, np.random.default_rng(seed))
        expected = naive_threshold(scores, np.random.default_rng(seed))
        np.testing.assert_equal(found, expected)
        verdicts.append(math.isnan(found))
    assert 10 < sum(verdicts) < 50  # both happen


def test_clusters_by_hand() -> None:
    generator = np.random.default_rng
    two = np.array([3.0, 1.0, 1.01, 2.98, 1.02, 0.99, 1.0, 1.01])
    assert cluster_threshold(two, generator(0)) == 1.02
    assert cluster_threshold(np.array([1.0, 5.0, 1.0, 1.0]), generator(0)) == 1.0  # W_2 = 0
    assert cluster_threshold(np.array([1e30, 1, 2, 1.5, 1.2, 1.7]), generator(0)) == 2
    assert math.isnan(cluster_threshold(np.full(9, 0.1), generator(0)))
    assert math.isnan(cluster_threshold(np.array([1.0, 5.0]), generator(0)))
    assert math.isnan(cluster_threshold(np.empty(0), generator(0)))


class World:
    """Clients that share a quadratic loss but for its center, and descend it in rounds."""

    def __init__(self, seed: int, noise: float = 0.0, rate: float = 0.1) -> None:
        # What no gradient trains has no part in the trained weights' loss.
        self.hessian = quadratic(seed) * (TRAINABLE[:, None] == TRAINABLE)
        self.noise, self.rate = noise, rate
        self.weights = np.full(D, 3.0, dtype=np.float32)
        self.rng = np.random.default_rng(seed)

    def round(self, number: int, ids: object = range(6)) -> Updates:
        ids = np.asarray(list(ids))
        gradients = (self.weights - CENTERS[ids]) @ self.hessian
        matrix = -self.rate * gradients + self.noise * self.rng.normal(size=(len(ids), D))
        counts = 10 + ids
        start = self.weights.copy()
        return Updates(number, ids, counts, start, matrix.astype(np.float32), LAYOUT)

    def step(self, aggregate: np.ndarray) -> None:
        self.weights = self.weights + aggregate


def with_row(updates: Updates, row: int, values: object) -> Updates:
    matrix = updates.matrix.copy()
    matrix[row] = values
    return replace(updates, matrix=matrix)


def test_rounds_against_loops(server: Server) -> None:
    """Partial participation, a newcomer, noise, windows that overflow, one conviction."""
    defense, world = FLDetector(window=3, start=4), World(3, noise=0.02)
    state = defense.init(server)
    turns_up = [range(5), range(5), [0, 2, 3, 4], range(5), [1, 2, 3, 4, 5], *[range(6)] * 5]
    expected: dict[int, np.ndarray] = {}
    past: dict[int, list[float]] = {}
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    convicts: set[int] = set()
    last_start = last_average = None
    since = 0
    for number, ids in enumerate(turns_up, start=1):
        ids, since = list(ids), since + 1
        updates = world.round(number, ids)
        if number >= 4 and 3 in ids:
            updates = with_row(updates, ids.index(3), 2.0 * (-1) ** number)
        verdict, state = defense.judge(updates, server, state)

        rows = updates.matrix.astype(np.float64)[:, TRAINABLE]
        start = updates.start.astype(np.float64)[TRAINABLE]
        if last_start is not None:
            b = dense_bfgs(pairs[-3:], int(TRAINABLE.sum()))
            for client in expected:
                expected[client] = expected[client] - b @ (start - last_start)
        known = [i for i in ids if i in expected]
        errors = {i: np.linalg.norm(expected[i] - rows[ids.index(i)]) for i in known}
        for i, error in errors.items():
            past.setdefault(i, []).append(error / np.mean(list(errors.values())))
        measured = {i: np.mean(past[i][-3:]) for i in known}
        middle = np.median(list(measured.values())) if measured else np.nan
        scores = np.array([measured.get(i, middle) for i in ids])

        threshold = math.nan
        if since >= 4:
            judged = np.array([measured[i] for i in known if i not in convicts])
            threshold = naive_threshold(judged, seeds.generator(server.seed, "fldetector", number))
        flagged = [i in known and measured[i] > threshold for i in ids]
        new = {i for i, flag in zip(ids, flagged, strict=True) if flag} - convicts
        convicts |= new
        accepted = np.array([i not in convicts for i in ids])
        weights = accepted * updates.sample_counts / (accepted * updates.sample_counts).sum()

        np.testing.assert_allclose(verdict.scores, scores, rtol=1e-4)
        np.testing.assert_allclose(verdict.threshold, threshold, rtol=1e-4)
        np.testing.assert_array_equal(verdict.flagged, flagged)
        np.testing.assert_array_equal(verdict.accepted, accepted)
        np.testing.assert_array_equal(verdict.convicted, ~accepted)
        np.testing.assert_allclose(verdict.weights, weights)
        np.testing.assert_allclose(verdict.aggregate, weights @ updates.matrix, atol=1e-5)
        assert [bool(r) for r in verdict.reasons] == (~accepted | flagged).tolist()

        average = verdict.aggregate.astype(np.float64)[TRAINABLE]
        if last_start is not None:
            pairs.append((start - last_start, last_average - average))
        if new:
            pairs, past, since = [], {}, 0
        last_start, last_average = start, average
        expected.update({i: rows[ids.index(i)] for i in ids})
        world.step(verdict.aggregate)
    assert convicts == {3}
    assert state["convicted"].nonzero()[0].tolist() == [3]


def test_predictions_converge_on_a_quadratic(server: Server) -> None:
    """All gradients turn alike here, so that the average's curvature foretells everybody's."""
    defense, world, ratios = FLDetector(window=13, start=99), World(4, rate=0.3), []
    state = defense.init(server)
    for number in range(1, 26):
        updates = world.round(number)
        if number > 1:
            step, blocks = updates.start - state["start"], list(updates.columns(trainable=True))
            turn = hessian_product(state["steps"], state["turns"], step, blocks)
            last, now = state["expected"][0][TRAINABLE], updates.matrix[0][TRAINABLE]
            error = np.linalg.norm(last - turn[TRAINABLE] - now)
            ratios.append(error / np.linalg.norm(last - now))  # 1: no better than the last update
        verdict, state = defense.judge(updates, server, state)
        world.step(verdict.aggregate)
    assert ratios[0] == pytest.approx(1, rel=1e-6)
    assert max(ratios[1:]) < 0.7
    assert max(ratios[12:]) < 0.1


def test_who_breaks_with_its_past_is_convicted_for_good(server: Server) -> None:
    defense, world = FLDetector(start=3), World(5, noise=0.01)
    state, seen = defense.init(server), []
    for number in range(1, 6):
        updates = world.round(number)
        if number <= 3:  # honest afterwards
            updates = with_row(updates, 2, world.rng.normal(size=D))
        verdict, state = defense.judge(updates, server, state)
        seen.append((verdict.flagged.tolist(), verdict.accepted.tolist(), verdict.reasons[2]))
        world.step(verdict.aggregate)
    nobody, third = [False] * 6, [i == 2 for i in range(6)]
    assert [flagged for flagged, _, _ in seen] == [nobody, nobody, third, nobody, nobody]
    assert [accepted[2] for _, accepted, _ in seen] == [True, True, False, False, False]
    assert "does not follow from its last updates" in seen[2][2]
    assert seen[4][2] == "convicted in an earlier round"


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_restart_leads_back_to_the_first_weights_once(server: Server, rate: float) -> None:
    server = replace(server, learning_rate=rate)
    defense, world = FLDetector(start=3, restart=True), World(5, noise=0.01)
    state, first = defense.init(server), world.weights.copy()
    for number in range(1, 4):
        updates = with_row(world.round(number), 2, world.rng.normal(size=D))
        verdict, state = defense.judge(updates, server, state)
        world.step(rate * verdict.aggregate)
    assert verdict.convicted.tolist() == [i == 2 for i in range(6)]
    np.testing.assert_allclose(world.weights, first, atol=1e-6)
    assert not verdict.weights.any()
    np.testing.assert_array_equal(state["first"], first)
    assert state["rounds"].tolist() == [0] and not state["known"].any()
    for number in range(4, 8):  # another attacker: convicted, but without going back
        updates = with_row(world.round(number), 4, world.rng.normal(size=D))
        verdict, state = defense.judge(updates, server, state)
        world.step(rate * verdict.aggregate)
    assert state["convicted"].nonzero()[0].tolist() == [2, 4]
    assert verdict.weights.sum() == pytest.approx(1)


def test_nobody_is_convicted_before_start(server: Server) -> None:
    defense, world = FLDetector(start=6), World(6)
    state = defense.init(server)
    for number in range(1, 7):
        updates = with_row(world.round(number), 0, world.rng.normal(size=D))
        verdict, state = defense.judge(updates, server, state)
        assert verdict.flagged.any() == (number == 6)
        assert np.isnan(verdict.scores).all() == (number == 1)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_rows_that_are_not_finite(server: Server, poison: float) -> None:
    defense, world = FLDetector(), World(7, noise=0.05)
    state = plain = defense.init(server)
    for number in range(1, 5):
        updates = world.round(number)
        bad = with_row(updates, 5, poison)
        verdict, state = defense.judge(bad, server, state)
        without, plain = defense.judge(updates.select(np.arange(5)), server, plain)
        np.testing.assert_array_equal(verdict.scores[:5], without.scores)
        np.testing.assert_array_equal(verdict.aggregate, without.aggregate)
        assert verdict.scores[5] == np.inf and verdict.flagged[5] and not verdict.accepted[5]
        assert verdict.reasons[5] == "the update holds NaN or infinity"
        world.step(verdict.aggregate)
    assert not state["convicted"].any() and not state["known"][5]
    verdict, state = defense.judge(world.round(5), server, state)  # it comes to its senses
    assert verdict.accepted[5] and verdict.scores[5] == np.median(verdict.scores[:5])
    nobody = replace(world.round(6), matrix=np.full((6, D), poison, np.float32))
    verdict, state = defense.judge(nobody, server, state)
    assert verdict.flagged.all() and not verdict.aggregate.any()


def test_numbers_near_the_end_of_float32(server: Server) -> None:
    defense, world = FLDetector(window=3, start=2), World(7)
    state = defense.init(server)
    with np.errstate(all="raise", under="ignore"):
        for number in range(1, 7):
            updates = with_row(world.round(number), 1, 3e38 * (-1) ** number)
            verdict, state = defense.judge(updates, server, state)
            assert np.isnan(verdict.scores).all() == (number == 1)
            assert np.isnan(verdict.scores).any() == (number == 1)
            assert np.isfinite(state["expected"]).all()
    assert state["convicted"].nonzero()[0].tolist() == [1]


def test_equal_and_perfectly_predicted_updates(server: Server) -> None:
    defense, state = FLDetector(start=2), FLDetector().init(server)
    matrix = np.ones((6, D), dtype=np.float32)
    updates = replace(World(0).round(1), matrix=matrix, start=np.zeros(D, np.float32))
    for number in range(1, 5):
        verdict, state = defense.judge(replace(updates, round=number), server, state)
        assert not verdict.flagged.any()
    assert verdict.scores.tolist() == [1.0] * 6


def played(defense: FLDetector, server: Server, order: np.ndarray, rounds: int = 6) -> list:
    world, state, verdicts = World(9, noise=0.03), defense.init(server), []
    for number in range(1, rounds + 1):
        updates = with_row(world.round(number), 1, world.rng.normal(size=D))
        rows = replace(
            updates,
            matrix=updates.matrix[order],
            client_ids=updates.client_ids[order],
            sample_counts=updates.sample_counts[order],
        )
        verdict, state = defense.judge(rows, server, state)
        verdicts.append(verdict)
        world.step(verdict.aggregate)
    return verdicts


def test_the_order_of_clients_does_not_matter(server: Server) -> None:
    order = np.array([4, 2, 5, 0, 1, 3])
    ones = played(FLDetector(), server, np.arange(6))
    others = played(FLDetector(), server, order)
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-4)
        np.testing.assert_array_equal(other.accepted, one.accepted[order])
        np.testing.assert_allclose(other.aggregate, one.aggregate, atol=1e-5)
    assert ones[-1].convicted[1]


def test_resumes_to_the_last_bit_and_changes_no_input(server: Server, tmp_path: Path) -> None:
    """Continues from a checkpoint after every round, also across the conviction."""
    defense, world = FLDetector(start=3, window=3), World(5, noise=0.01)
    state = defense.init(server)
    for number in range(1, 7):
        updates = with_row(world.round(number), 2, world.rng.normal(size=D))
        write_tensors(tmp_path / "state", state, {})
        before = {key: value.copy() for key, value in state.items()}
        one, after = defense.judge(updates, server, state)
        other, again = defense.judge(updates, server, read_tensors(tmp_path / "state")[0])
        np.testing.assert_array_equal(one.aggregate, other.aggregate)
        np.testing.assert_array_equal(one.scores, other.scores)
        equal_states(after, again)
        equal_states(state, before)
        state = after
        world.step(one.aggregate)
    assert state["convicted"].any()


def equal_states(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
        assert one[key].dtype == other[key].dtype


def test_refusals(layout: WeightLayout, server: Server) -> None:
    FLDetector().check(3, layout)
    with pytest.raises(UsageError, match="at least 3 participants a round, not 2"):
        FLDetector().check(2, layout)
    large = WeightLayout((Entry("logits/kernel", (1 << 23,), True),))
    FLDetector().check(20, large)
    with pytest.raises(UsageError, match=r"remember 3\.9 GiB of 100 clients' updates, more than 2"):
        FLDetector().check(100, large)
    with pytest.raises(UsageError, match="clients' updates"):
        FLDetector().init(replace(server, layout=large, clients=100))
    for option, value in (("start", 1), ("window", 0), ("restart", "perhaps")):
        with pytest.raises(UsageError, match=rf"defense\.{option}"):
            create_defense("fldetector", {option: value})
    assert create_defense("fldetector", {}).tracks_clients

"""Coalition: its statistics against SciPy and loops, whom it convicts, and what cannot fool it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.data.samples import PROBE_DATA, Samples
from tffl.defenses import Server, create_defense
from tffl.defenses.coalition import Coalition, joint_weights
from tffl.defenses.parts.coalitions import (
    STUDENT,
    WELCH,
    Coalitions,
    Search,
    breadth,
    coherence,
    cohesion,
    cost,
    proposals,
    widening,
)
from tffl.explain.maps import Explainer
from tffl.explain.probes import draw
from tffl.models import models


def search(affinity: np.ndarray, costs: np.ndarray, held: np.ndarray) -> Coalitions:
    return Search(least=0.1, relief=0.75)(affinity, lambda left: costs[left], held)


NOBODY = np.zeros(20, dtype=bool)


def mask(n: int, members: object) -> np.ndarray:
    result = np.zeros(n, dtype=bool)
    result[list(members)] = True
    return result


def affinity_of(n: int, members: object, cosine: float) -> np.ndarray:
    inside = mask(n, members)
    result = np.where(np.outer(inside, inside), cosine, 0.0)
    np.fill_diagonal(result, 1)
    return result


class TestStatistics:
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(20, 5))
    group = mask(20, [1, 4, 7])

    def test_cohesion_is_that_of_a_loop(self) -> None:
        root = self.rng.normal(size=(20, 30))
        affinity = np.corrcoef(root)
        inside, outside = np.flatnonzero(self.group), np.flatnonzero(~self.group)
        within = np.mean([affinity[i, j] for i in inside for j in inside if i != j])
        across = np.mean([affinity[i, j] for i in inside for j in outside])
        found = cohesion(affinity, self.group[None])
        np.testing.assert_allclose(found, [within - across])

    @pytest.mark.parametrize("members", [[1, 4, 7], [5]])
    def test_coherence_is_that_of_a_loop(self, members) -> None:
        affinity = np.corrcoef(np.random.default_rng(2).normal(size=(9, 30)))
        for client, found in enumerate(coherence(affinity, mask(9, members))):
            mates = [affinity[client, j] for j in members if j != client]
            others = [affinity[client, j] for j in range(9) if j not in (*members, client)]
            assert found == pytest.approx(np.mean(mates or 0) - np.mean(others))

    def test_cost_is_the_larger_t_of_scipy_times_breadth(self) -> None:
        costs = self.costs + 2 * self.group[:, None]
        total = costs.mean(axis=1)
        both = total[self.group], total[~self.group]
        welch, student = (ttest_ind(*both, equal_var=equal).statistic for equal in (False, True))
        gaps = costs[self.group].mean(axis=0) - costs[~self.group].mean(axis=0)
        share = gaps.sum() / np.abs(gaps).sum()
        expected = share * max(welch / WELCH, student / STUDENT) / (1 + 1 / 3)
        np.testing.assert_allclose(cost(costs, self.group[None]), [expected])
        np.testing.assert_allclose(breadth(costs, self.group[None]), [share])

    def test_less_clients_need_more(self) -> None:
        assert widening(20) == widening(200) == 1 < widening(10) < widening(6)

    def test_whoever_helps_costs_nothing(self) -> None:
        helpers = self.costs - 5 * self.group[:, None]
        assert cost(helpers, self.group[None]).item() == 0

    @pytest.mark.parametrize("members", [[0, 1], [3, 9, 12], [2, 5, 8, 11, 14, 17, 19, 0, 1, 3]])
    def test_coherent_groups_are_proposed(self, members) -> None:
        groups = proposals(affinity_of(20, members, 0.5))
        assert mask(20, members).tolist() in groups.tolist()
        assert len(np.unique(groups, axis=0)) == len(groups)
        assert (groups.sum(axis=1) >= 2).all() and (groups.sum(axis=1) <= 10).all()


class TestSearch:
    costs = np.random.default_rng(1).normal(size=(20, 6))

    def test_who_pushes_together_and_costs_is_found(self) -> None:
        attackers = mask(20, [2, 5, 8, 13])
        costs = self.costs + 4 * attackers[:, None]
        found = search(affinity_of(20, [2, 5, 8, 13], 0.4), costs, NOBODY)
        assert found.members.tolist() == attackers.tolist()
        assert (found.evidence[attackers] > 1).all() and (found.evidence[~attackers] <= 1).all()
        assert found.suspects.tolist() == attackers.tolist()

    def test_two_coalitions_are_both_found(self) -> None:
        one, two = mask(20, [0, 1, 2]), mask(20, [10, 11, 12, 13])
        affinity = (
            affinity_of(20, [0, 1, 2], 0.4) + affinity_of(20, [10, 11, 12, 13], 0.4) - np.eye(20)
        )
        costs = self.costs + 4 * (one | two)[:, None]
        found = search(affinity, costs, NOBODY)
        assert found.members.tolist() == (one | two).tolist()
        assert found.costs.tolist() == costs.mean(axis=1).tolist()

    def test_coherence_without_cost_is_honest_uneven_data(self) -> None:
        found = search(affinity_of(20, [0, 1, 2, 3], 0.7), self.costs, NOBODY)
        assert not found.members.any()

    @pytest.mark.filterwarnings("error")
    def test_equal_costs_are_no_numbers_to_divide_by(self) -> None:
        costs = np.zeros((20, 6))
        costs[3] = 1.0
        found = search(np.eye(20), costs, NOBODY)
        assert np.flatnonzero(found.members).tolist() == [3] and not np.isnan(found.evidence).any()

    def test_specialists_gain_what_they_cost(self) -> None:
        specialists = mask(20, [0, 1, 2, 3])
        costs = self.costs.copy()
        costs[specialists] += [3.0, 3.0, 3.0, 3.0, 3.0, -12.0]
        found = search(affinity_of(20, [0, 1, 2, 3], 0.6), costs, NOBODY)
        assert not found.members.any()

    def test_clones_need_not_cost(self) -> None:
        clones = mask(20, [4, 5, 6])
        found = search(affinity_of(20, [4, 5, 6], 1.0), self.costs, NOBODY)
        assert found.members.tolist() == clones.tolist()

    def test_whoever_costs_alone_is_convicted_alone(self) -> None:
        costs = self.costs + 12 * mask(20, [7])[:, None]
        found = search(np.eye(20), costs, NOBODY)
        assert np.flatnonzero(found.members).tolist() == [7]

    def test_convicts_get_no_benefit_of_the_doubt(self) -> None:
        """The same cohesion, 0.8, once of strangers and once of who was convicted last time."""
        members, nothing = mask(20, [2, 5, 8, 13]), np.zeros((20, 3))
        affinity = affinity_of(20, [2, 5, 8, 13], 0.8)
        assert not search(affinity, nothing, NOBODY).members.any()
        assert search(affinity, nothing, members).members.tolist() == members.tolist()

    def test_followers_join_by_direction_and_cost(self) -> None:
        """One member is as near as the others but costs less than makes a group of all."""
        members = mask(20, [2, 5, 8])
        affinity = affinity_of(20, [2, 5, 8, 13], 0.5)
        costs = self.costs * 0.1 + 4 * members[:, None] + 1.5 * mask(20, [13])[:, None]
        found = search(affinity, costs, NOBODY)
        assert np.flatnonzero(found.members).tolist() == [2, 5, 8, 13]

    @settings(max_examples=30, deadline=None)
    @given(
        n=st.integers(5, 14),
        seed=st.integers(0, 10_000),
        push=st.floats(0, 9),
        held=st.integers(0, 5),
    )
    def test_at_most_half_and_independent_of_the_order(self, n, seed, push, held) -> None:
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(n, 12))
        colluders = rng.random(n) < 0.6
        rows[colluders] += push * rng.normal(size=12)
        affinity = np.corrcoef(rows)
        costs = rng.normal(size=(n, 3)) + push * colluders[:, None]
        before = mask(n, rng.permutation(n)[:held])
        found = search(affinity, costs, before)
        assert found.members.sum() <= n // 2
        assert ((found.evidence > 1) == found.members).all()
        order = rng.permutation(n)
        again = search(affinity[np.ix_(order, order)], costs[order], before[order])
        np.testing.assert_array_equal(again.members, found.members[order])
        np.testing.assert_allclose(again.evidence, found.evidence[order], rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def server() -> Server:
    model = models["lenet5"]((12, 12, 1), 5, seed=1)
    rng = np.random.default_rng(0)
    labels = np.arange(100, dtype=np.int32) % 5
    images = (rng.random((100, 12, 12, 1)) * 40 + labels[:, None, None, None] * 50).astype(np.uint8)
    samples = Samples(images, labels, 5)
    layout = WeightLayout.of(model)
    return Server(model, layout, 12, 0, samples=samples, explainer=Explainer(model))


def honest(server: Server, n: int = 12, seed: int = 1) -> Updates:
    layout, rng = server.layout, np.random.default_rng(seed)
    start = layout.flatten(server.model.get_weights())
    rows = rng.normal(0, 0.001, (n, layout.size)).astype(np.float32)
    return Updates(1, np.arange(n), np.full(n, 5), start, rows, layout)


def gradient_of(server: Server, weights: np.ndarray, images, labels) -> tuple[float, np.ndarray]:
    """Returns loss and gradient as plain Keras and TensorFlow compute them."""
    model = server.model
    model.set_weights(server.layout.unflatten(weights))
    with tf.GradientTape() as tape:
        logits = model(images.astype(np.float32), training=False)
        loss = keras.losses.SparseCategoricalCrossentropy(True)(labels, logits)
    parts = tape.gradient(loss, model.trainable_variables)
    return float(loss), np.concatenate([part.numpy().ravel() for part in parts])


class TestDefense:
    def test_the_gradient_is_that_of_keras(self, server) -> None:
        probes, weights = draw(server.samples, 20, 0), honest(server).weights(3)
        loss, gradient = server.explainer.loss(weights, probes)
        expected, expected_gradient = gradient_of(server, weights, probes.images, probes.classes)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-6)

    def test_who_adds_a_costly_shift_to_honest_updates_is_found(self, server) -> None:
        """They are spread as honest ones are, and tests of one client see nothing."""
        updates = honest(server)
        labels = server.samples.labels
        _, climb = gradient_of(server, updates.start, server.samples.images, labels)
        push = climb / np.linalg.norm(climb) * np.median(updates.norms())
        rows = updates.matrix.copy()
        rows[[1, 4, 6, 9]] += push.astype(np.float32)
        verdict = self.judge(server, replace(updates, matrix=rows))
        assert np.flatnonzero(verdict.convicted).tolist() == [1, 4, 6, 9]
        assert verdict.accepted.tolist() == (~verdict.convicted).tolist()
        assert "pushes with 4, 6, 9" in verdict.reasons[1]
        (plane,) = verdict.shown
        assert plane.groups.tolist() == np.where(verdict.convicted, 0, -1).tolist()
        assert plane.suspects.tolist() == verdict.convicted.tolist()
        assert plane.evidence.tolist() == verdict.scores.tolist()
        for values in (plane.coherence, plane.cost):
            assert values[verdict.convicted].min() > values[~verdict.convicted].max()
        plain = create_defense("update-consensus", {}).judge_rows(rows, layout=server.layout)
        assert plain.accepted[[1, 4, 6, 9]].all()

    def test_who_descends_the_loss_together_is_not(self, server) -> None:
        updates = honest(server)
        labels = server.samples.labels
        _, climb = gradient_of(server, updates.start, server.samples.images, labels)
        push = climb / np.linalg.norm(climb) * np.median(updates.norms())
        rows = updates.matrix.copy()
        rows[[1, 4, 6, 9]] -= push.astype(np.float32)
        assert self.judge(server, replace(updates, matrix=rows)).accepted.all()

    def test_without_images_only_cohesion_is_seen(self, server) -> None:
        rows = np.eye(12, 40)
        rows[:4, 20:] += 2.0
        assert Coalition(images=0).judge_rows(rows).accepted.tolist() == [False] * 4 + [True] * 8
        rows = np.eye(12, 40)
        rows[:4, 20:] += 0.15
        assert Coalition(images=0).judge_rows(rows).accepted.all()
        assert Coalition(images=0).declared_knowledge() == ()
        assert Coalition().declared_knowledge() == (PROBE_DATA,)

    def test_an_absurd_row_does_not_move_the_point_of_the_gradient(self, server) -> None:
        updates = honest(server)
        rows = updates.matrix.copy()
        rows[0] *= np.float32(1e30)
        moved = joint_weights(replace(updates, matrix=rows), 1.0) - updates.start
        assert np.linalg.norm(moved) < np.median(updates.norms())
        verdict = self.judge(server, replace(updates, matrix=rows))
        assert np.isfinite(verdict.scores).all()

    def test_statistics_are_the_median(self) -> None:
        rows = np.zeros((5, 4), np.float32)
        rows[:, 3] = [1, 1, 1, 1, 1000]
        layout = WeightLayout((Entry("d/kernel", (3,), True), Entry("b/mean", (1,), False)))
        updates = Updates.of_rows(rows, layout=layout)
        assert joint_weights(updates, 0.5).tolist() == [0, 0, 0, 0.5]

    def test_a_gradient_that_is_not_finite_counts_as_no_cost(self, server) -> None:
        def loss(weights, probes):
            return np.nan, np.full(server.layout.size, np.nan, np.float32)

        blind = replace(server, explainer=SimpleNamespace(loss=loss))
        assert self.judge(blind, honest(server)).accepted.all()

    def test_rows_that_are_not_finite_are_rejected_and_judge_nobody(self, server) -> None:
        updates = honest(server)
        rows = updates.matrix.copy()
        rows[3, 0] = np.nan
        verdict = self.judge(server, replace(updates, matrix=rows))
        assert np.flatnonzero(~verdict.accepted).tolist() == [3]
        (plane,) = verdict.shown
        assert np.isnan([plane.coherence[3], plane.cost[3], plane.evidence[3]]).all()
        assert np.isfinite(np.delete(plane.coherence, 3)).all()
        assert (plane.groups[3], plane.suspects[3]) == (-1, False)
        rows[:9] = np.nan
        verdict = self.judge(server, replace(updates, matrix=rows))
        assert verdict.accepted.tolist() == [False] * 9 + [True] * 3

    def test_few_clients_are_refused(self, layout) -> None:
        with pytest.raises(UsageError, match="coalition needs at least 5 participants a round"):
            create_defense("coalition", {}).check(4, layout)

    def test_fewer_images_than_asked_for_are_all_used(self, server) -> None:
        few = replace(server, samples=Samples(server.samples.images[:7], np.arange(7) % 5, 5))
        assert self.judge(few, honest(server)).accepted.all()

    def test_a_scan_may_use_it(self) -> None:
        assert Coalition().tracks_clients and not Coalition().needs_history
        assert not Coalition(forgetting=0).tracks_clients
        assert Coalition(window=3, votes=2).needs_history

    @staticmethod
    def judge(server: Server, updates: Updates):
        defense = create_defense("coalition", {})
        return defense.judge(updates, server, defense.init(server))[0]

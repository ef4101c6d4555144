"""Distance-constrained poisoning: its ball, its share of the mean, its climb."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tffl
from tffl.attacks import attacks
from tffl.attacks.bounded import ExpectedModel, distances_to, length, project, unit
from tffl.attacks.distance_constrained import DistanceConstrained
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.record.run_directory import RunDirectory


def create(**options: object) -> DistanceConstrained:
    return attacks.create("distance-constrained", options)


def linear(adversary: Any, slope: np.ndarray) -> SimpleNamespace:
    """Colluders whose loss is a plane, so that the optimum is known; notes where it is asked."""
    images, labels = np.zeros((40, 1, 1, 1), np.uint8), np.arange(40, dtype=np.int32)
    asked: list[np.ndarray] = []

    def gradient(weights: np.ndarray, images: np.ndarray, labels: np.ndarray) -> Any:
        asked.append(weights)
        return float(weights @ slope), slope.astype(np.float32)

    return SimpleNamespace(
        seed=adversary.seed,
        layout=adversary.layout,
        clients=adversary.clients,
        samples=lambda: (images, labels),
        gradient=gradient,
        asked=asked,
    )


def honest_mean(this: Any) -> np.ndarray:
    counts = this.updates.sample_counts[~this.malicious].astype(np.float64)
    rows = this.updates.matrix[~this.malicious].astype(np.float64)
    return counts @ rows / counts.sum()


def test_project_and_unit() -> None:
    np.testing.assert_allclose(project(np.array([0.0, -6, 8]), 5.0), [0, -3, 4])
    np.testing.assert_array_equal(project(np.array([0.0, -3, 4]), 5.0), [0, -3, 4])
    np.testing.assert_array_equal(project(np.array([1.0, 0]), 0.0), [0, 0])
    np.testing.assert_allclose(unit(np.array([0, 3, -4], np.float32)), [0, 0.6, -0.8])
    for vector in ([0, 0], [np.inf, 1], [np.nan, 1]):
        np.testing.assert_array_equal(unit(np.array(vector)), [0, 0])


@given(
    move=arrays(np.float64, 7, elements=st.floats(-1e3, 1e3)),
    radius=st.just(0.0) | st.floats(1e-100, 100),
)
def test_projection_is_the_nearest_point(move: np.ndarray, radius: float) -> None:
    near = project(move, radius)
    assert length(near) <= radius * (1 + 1e-12)
    np.testing.assert_allclose(length(move - near), max(0, length(move) - radius), atol=1e-9)


def test_what_is_expected_by_hand(a_round, layout) -> None:
    this = a_round()
    seen = this.updates.select(~this.malicious)
    expected = ExpectedModel.of(this.updates, this.malicious, seen)
    counts, mean = this.updates.sample_counts, honest_mean(this)
    np.testing.assert_allclose(expected.center, mean, atol=1e-6)
    np.testing.assert_allclose(expected.share, counts[this.malicious].sum() / counts.sum())
    away = (this.updates.matrix[~this.malicious] - mean)[:, layout.trainable]
    np.testing.assert_allclose(expected.distances, np.linalg.norm(away, axis=1), rtol=1e-6)
    # All attackers send the mean plus a move: this is what FedAvg makes of it.
    move = np.random.default_rng(0).normal(size=layout.size)
    matrix = this.updates.matrix.astype(np.float64)
    matrix[this.malicious] = mean + move
    joint = this.updates.start + counts @ matrix / counts.sum()
    np.testing.assert_allclose(expected.joint(move), joint, atol=1e-5)


def test_the_unseen_are_taken_to_be_like_the_seen(a_round) -> None:
    this = a_round()
    some = np.flatnonzero(~this.malicious)[:3]
    expected = ExpectedModel.of(this.updates, this.malicious, this.updates.select(some))
    claimed = this.updates.sample_counts[this.malicious].sum()
    unseen = 9 * this.updates.sample_counts[some].mean()
    np.testing.assert_allclose(expected.share, claimed / (claimed + unseen))


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 1.0])
def test_a_plane_is_climbed_to_the_edge_of_the_ball(a_round, layout, quantile: float) -> None:
    this, slope = a_round(), np.random.default_rng(3).normal(size=layout.size)
    adversary = linear(this.adversary, slope)
    row = replace(this, adversary=adversary).row(create(quantile=quantile))
    mean, free = honest_mean(this)[layout.trainable], slope[layout.trainable]
    radius = np.quantile(np.linalg.norm(this.honest - mean, axis=1), quantile)
    best = mean + radius * free / np.linalg.norm(free)
    np.testing.assert_allclose(row, best, atol=1e-5)
    assert len(adversary.asked) == 20


def test_the_joint_model_is_where_the_gradient_is_taken(a_round, layout) -> None:
    this, slope = a_round(), np.random.default_rng(3).normal(size=layout.size)
    adversary = linear(this.adversary, slope)
    replace(this, adversary=adversary).sent(create(steps=2, step=0.25))
    seen = this.updates.select(~this.malicious)
    expected = ExpectedModel.of(this.updates, this.malicious, seen)
    direction = np.where(layout.trainable, slope, 0)
    move = 0.25 * expected.distances.max() * direction / np.linalg.norm(direction)
    np.testing.assert_allclose(adversary.asked[0], expected.joint(0 * move), atol=1e-6)
    np.testing.assert_allclose(adversary.asked[1], expected.joint(move), atol=1e-5)


@pytest.mark.parametrize("ratio", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("knows", ["all-benign", "overheard", "colluders"])
@pytest.mark.parametrize("seed", range(3))
def test_the_ball_holds(a_round, layout, ratio: float, knows: str, seed: int) -> None:
    """On every row, over all trainable columns, also where columns stay as trained."""
    this, slope = a_round(seed=seed), np.random.default_rng(seed).normal(size=layout.size)
    adversary = linear(this.adversary, slope)
    attack = create(poisoning_ratio=ratio, knows=knows)
    sent = replace(this, adversary=adversary).attacked(attack)[0]
    seen = attack.seen(this.updates, this.malicious, adversary)
    expected = ExpectedModel.of(this.updates, this.malicious, seen)
    radius = expected.distances.max()
    own = this.updates.select(this.malicious)
    frozen = layout.trainable & ~attack.modifiable(layout, adversary.seed)
    alone = np.linalg.norm((own.deltas - expected.center)[:, frozen], axis=1)
    reach = distances_to(sent.select(this.malicious), expected.center)
    assert (reach <= np.maximum(radius, alone.max()) * (1 + 1e-6)).all()
    if ratio == 1:
        np.testing.assert_allclose(reach, radius, rtol=1e-6)
        # Equation 9b: the distance to the joint model, with (1 - p) r.
        counts = this.updates.sample_counts
        if knows == "all-benign":
            joint = counts @ sent.matrix.astype(np.float64) / counts.sum()
            far = distances_to(sent.select(this.malicious), joint)
            np.testing.assert_allclose(far, (1 - expected.share) * radius, rtol=1e-5)
    np.testing.assert_array_equal(
        sent.matrix[:, ~layout.trainable], this.updates.matrix[:, ~layout.trainable]
    )


def test_one_update_leaves_no_room(a_round) -> None:
    this = a_round(honest=1, malicious=2)
    adversary = linear(this.adversary, np.ones(this.updates.layout.size))
    row = replace(this, adversary=adversary).row(create())
    np.testing.assert_array_equal(row, this.honest[0])


def test_a_loss_that_is_not_finite_moves_nothing(a_round, layout) -> None:
    this = a_round()
    adversary = linear(this.adversary, np.full(layout.size, np.nan))
    row = replace(this, adversary=adversary).row(create())
    np.testing.assert_allclose(row, honest_mean(this)[layout.trainable], atol=1e-6)


def test_batches_are_drawn_per_round_and_step(a_round) -> None:
    adversary = linear(a_round().adversary, np.ones(1))

    def drawn(round: int) -> list[list[int]]:
        return [labels.tolist() for _, labels in create(batch=7, steps=3).batches(adversary, round)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert all(len(set(labels)) == 7 for labels in drawn(1))
    assert drawn(1)[0] != drawn(1)[1]
    assert [len(labels) for _, labels in create(batch=99).batches(adversary, 1)] == [40] * 20


@pytest.mark.parametrize(
    ("options", "malicious", "message"),
    [
        ({"knows": "overheard", "overheard": 1}, 2, "overhear at least 2"),
        ({"knows": "colluders"}, 1, "needs at least 2 malicious clients"),
    ],
)
def test_refuses_what_has_no_distance(options: dict, malicious: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**options).check_clients(malicious, 10)
    create(**options).check_clients(0, 10)
    create().check_clients(malicious, 10)


@pytest.mark.parametrize(
    ("option", "value"),
    [("quantile", 1.1), ("steps", 0), ("step", 0), ("step", "inf"), ("batch", 0)],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})


def simulate(name: str, path: Any = None, **changes: Any) -> Any:
    values = {
        "data": {"dataset": "digits", "train_limit": 600, "test_limit": 200},
        "federation": {"clients": 6, "malicious": 2, "rounds": 4},
        "model": {"name": "lenet5"},
        "training": {"optimizer": "adam", "learning_rate": 2e-3, "local_epochs": 3},
        "attack": {"name": name},
        "record": {"store_updates": "all", "export": False, "figures": False},
    }
    return tffl.simulate(build({**values, **changes}), path)


def test_real_updates_stay_inside(tmp_path) -> None:
    federation = {"clients": 6, "malicious": 2, "rounds": 2}
    run = simulate("distance-constrained", tmp_path / "run", federation=federation)
    for updates in RunDirectory.open(tmp_path / "run").updates():
        malicious = np.isin(updates.client_ids, run.summary["malicious_clients"])
        honest = updates.select(~malicious)
        center = honest.mean(honest.sample_counts / honest.sample_counts.sum())
        bound = distances_to(honest, center).max()
        far = distances_to(updates.select(malicious), center)
        np.testing.assert_allclose(far, bound, rtol=1e-5)


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_real_updates_do_harm(seed: int) -> None:
    """Of ten seeds, the least accuracy without it was .86, and the least that it cost .32."""
    honest, poisoned = (simulate(name, seed=seed) for name in ("none", "distance-constrained"))
    assert honest.summary["accuracy"] > 0.6
    assert poisoned.summary["accuracy"] < honest.summary["accuracy"] - 0.15

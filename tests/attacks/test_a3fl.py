"""A3FL: a step of the search by hand, what is trained, and success that follows the trigger."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tffl
from tffl.attacks import attacks, create_attack
from tffl.attacks.a3fl import A3fl
from tffl.attacks.adversary import Adversary
from tffl.config import build
from tffl.core import states
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.engine.observer import Observer
from tffl.engine.trigger_search import TriggerSearch
from tffl.simulation.experiment import Experiment
from tffl.testing.fixtures import (
    IMAGE_SHAPE,
    small_dataset,
    small_federation,
    small_model,
    small_round,
)

QUICK = {"search_epochs": 4, "adversarial_every": 3, "adversarial_epochs": 1, "size": 4}
MALICIOUS = np.array([1, 3])


def create(**options: object) -> A3fl:
    return attacks.create("a3fl", {**QUICK, **options})


def test_a_pass_of_the_search_by_hand() -> None:
    """Signed steps on the sum of two models' losses, batch by batch, within 0 and 255."""
    model, layout = small_model(), WeightLayout.of(small_model())
    start = layout.flatten(model.get_weights())
    weights = np.stack([start, start * np.float32(1.1)])
    images, target, step = small_dataset().train_images[:40], 4, 90.0
    mask = np.zeros((*IMAGE_SHAPE[:2], 1), np.float32)
    mask[2:6, 2:6] = 1
    expected = np.full(IMAGE_SHAPE, 127.5, np.float32)
    for begin in (0, 16, 32):
        batch = images[begin : begin + 16].astype(np.float32)
        gradient = np.zeros(IMAGE_SHAPE)
        for flat, share in zip(weights, (1.0, 0.3), strict=True):
            model.set_weights(layout.unflatten(flat))
            trigger = tf.constant(expected)
            with tf.GradientTape() as tape:
                tape.watch(trigger)
                logits = model(batch * (1 - mask) + trigger * mask, training=False)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    np.full(len(batch), target), logits
                )
                loss = tf.reduce_mean(losses)
            gradient += share * tape.gradient(loss, trigger).numpy()
        clear = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
        assert (clear == (mask > 0)).mean() > 0.9
        expected = np.clip(expected - step * np.sign(gradient), 0, 255).astype(np.float32)
    model.set_weights(layout.unflatten(start))
    found = TriggerSearch(model, batch_size=16).descend(
        weights, np.array([1.0, 0.3]), images, np.full(IMAGE_SHAPE, 127.5), mask, target, step
    )
    differing = found != expected
    assert differing.mean() < 0.03  # signs of gradients near 0
    assert (found[mask[..., 0] == 0] == 127.5).all() and found.min() == 0 and found.max() == 255


def test_the_trigger_lowers_the_loss_of_the_target(small_adversary: Adversary) -> None:
    one, attack = small_adversary, create(target=5, search_epochs=12, balance=0)
    start = one.layout.flatten(small_model().get_weights())
    updates = small_round(one.layout, np.arange(4), start)
    malicious = np.isin(updates.client_ids, MALICIOUS)
    first = attack.init(one)
    rows, state = attack.send(updates, malicious, one, first)
    assert rows is not None and rows.shape == (2, one.layout.size)
    images, _ = one.samples()
    targets = np.full(len(images), 5, np.int32)
    gray, learned = (
        one.gradient(start, attack.stamp(images, np.asarray(memory["trigger"])), targets)[0]
        for memory in (first, state)
    )
    assert learned < gray - 0.05


def test_what_is_trained_shows_the_trigger(
    small_adversary: Adversary, trainings: list[dict[str, Any]]
) -> None:
    one, attack = small_adversary, create(target=5, rate=0.25, balance=0.01)
    start = one.layout.flatten(small_model().get_weights())
    updates = small_round(one.layout, np.arange(4), start)
    malicious = np.isin(updates.client_ids, MALICIOUS)
    _, state = attack.send(updates, malicious, one, attack.init(one))
    trigger = np.asarray(state["trigger"])
    # The model that unlearns it, before passes 1 and 4, on all images and their true labels.
    assert [call["client"] for call in trainings] == [1, 1, 1, 3]
    for call in trainings[:2]:
        images, labels = one.samples(np.array([1]))
        assert call["epochs"] == 1 and call["learning_rate"] == 0.01
        np.testing.assert_array_equal(call["samples"][1], labels)
        assert (call["samples"][0] != images).any(axis=(1, 2, 3)).all()
    for call in trainings[2:]:
        images, labels = one.samples(np.array([call["client"]]))
        chosen = call["samples"][1] != labels
        assert chosen.sum() == 15 and (call["samples"][1][chosen] == 5).all()  # a quarter of 60
        np.testing.assert_array_equal(
            call["samples"][0][chosen], attack.stamp(images[chosen], trigger)
        )
        np.testing.assert_array_equal(call["samples"][0][~chosen], images[~chosen])


def config(rounds: int = 2, **attack: object) -> Any:
    return build(
        {
            "data": {"dataset": "digits", "train_limit": 200, "test_limit": 100},
            "federation": {"clients": 4, "malicious": 2, "rounds": rounds},
            "model": {"name": "lenet5"},
            "attack": {"name": "a3fl", **QUICK, **attack},
            "record": {"export": False, "figures": False},
        }
    )


def test_success_follows_the_trigger() -> None:
    experiment = Experiment(config(), Observer())
    weights = experiment.first_weights[None]
    success = experiment.evaluation.success
    assert success is not None
    losses = []
    for value in (127.5, 0.0, 255.0):
        shape = (4, 4, success.images.shape[-1])
        state = {"trigger": np.full(shape, value, np.float32)}
        experiment.follow_attack(state)
        losses.append(experiment.evaluation.scores(weights)["attack_loss"])
        images = success.images.copy()
        images[:, 2:6, 2:6] = np.rint(value)
        loss, _ = experiment.attackers.adversary.gradient(weights[0], images, success.targets)
        np.testing.assert_allclose(losses[-1], loss, rtol=1e-4)
    assert len(set(losses)) == 3


def test_a_run_can_be_continued(tmp_path) -> None:
    whole = tffl.simulate(config(), tmp_path / "whole")
    tffl.simulate(config(rounds=1), tmp_path / "half")
    half = tffl.simulate(config(), tmp_path / "half", resume=True)
    columns = ["round", "accuracy", "attack_success", "attack_loss"]
    assert whole.rounds[columns].equals(half.rounds[columns])
    assert len(half.rounds) == 2


def test_it_joins_scaling_but_nothing_that_trains_again(small_adversary: Adversary) -> None:
    joined = create_attack("a3fl+scaling", {**QUICK, "factor": 2})
    one = small_adversary
    updates = small_round(one.layout, np.arange(4), one.layout.flatten(small_model().get_weights()))
    malicious = np.isin(updates.client_ids, MALICIOUS)
    rows, state = joined.send(updates, malicious, one, joined.init(one))
    alone, _ = create().send(updates, malicious, one, create().init(one))
    trainable = one.layout.trainable
    assert rows is not None and alone is not None
    np.testing.assert_allclose(rows[:, trainable], 2 * alone[:, trainable], rtol=1e-6)
    assert "trigger" in states.part(state, 0)
    with pytest.raises(UsageError, match=r"a3fl\+neurotoxin is not allowed: both parts train"):
        create_attack("a3fl+neurotoxin", {})


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(UsageError, match=r"attack\.size = 11 does not fit .*: choose at most 10"):
        create(size=11).check(small_dataset())
    with pytest.raises(UsageError, match="a3fl poisons nothing"):
        create(rate=0.001).poison(small_federation(4), MALICIOUS, 0)

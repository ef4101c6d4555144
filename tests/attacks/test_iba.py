"""IBA: the generator's training against plain Keras, the bound on pixels, and what is measured."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tffl.attacks import attacks
from tffl.attacks.adversary import Adversary
from tffl.attacks.base import SuccessSet
from tffl.attacks.iba import Iba
from tffl.core.layout import WeightLayout
from tffl.core.pixels import BYTES
from tffl.engine.trigger_generator import GeneratorTraining, first_weights, generator, perturbed
from tffl.testing.fixtures import (
    IMAGE_SHAPE,
    small_dataset,
    small_federation,
    small_model,
    small_round,
)

MALICIOUS = np.array([1, 3])


def create(**options: object) -> Iba:
    return attacks.create("iba", options)


def test_a_step_of_the_generator_is_that_of_keras() -> None:
    classifier, network = small_model(), keras.models.clone_model(generator(IMAGE_SHAPE))
    layout, flat = WeightLayout.of(network), first_weights(IMAGE_SHAPE)
    network.set_weights(layout.unflatten(flat))
    images = small_dataset().train_images[:24]
    weights = WeightLayout.of(classifier).flatten(classifier.get_weights())
    optimizer = keras.optimizers.Adam(0.002)
    for rows in (slice(0, 16), slice(16, 24)):
        batch = images[rows].astype(np.float32)
        with tf.GradientTape() as tape:
            pattern = network(batch / 255, training=True)
            shown = tf.clip_by_value(batch + 0.1 * 255 * pattern, 0, 255)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                np.full(len(batch), 3), classifier(shown, training=False)
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)
    expected = layout.flatten(network.get_weights())
    order = np.arange(24)[None]
    trained = GeneratorTraining(classifier, batch_size=16).train(
        flat, weights, images, order, 3, 0.1, 0.002
    )
    # Adam moves a weight by its gradient's sign at first, also where the gradient is nearly 0.
    near = np.isclose(trained, expected, atol=2e-4)
    assert near.mean() > 0.97 and np.abs(expected - flat).max() > 0.001
    assert np.isclose(expected, flat, atol=2e-4).mean() < 0.8


@pytest.mark.parametrize("shape", [(12, 12, 1), (28, 28, 1), (32, 32, 3)])
def test_no_pixel_changes_by_more_than_the_amplitude(shape: tuple[int, int, int]) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (6, *shape), dtype=np.uint8)
    flat = first_weights(shape) * 20  # so that tanh is saturated
    shown = perturbed(flat, images, 0.1, BYTES)
    assert shown.dtype == np.uint8
    change = np.abs(shown.astype(int) - images)
    assert 20 < change.max() <= 26
    floats = (images / 255).astype(np.float32)
    moved = perturbed(flat, floats, 0.1, (0.0, 1.0))
    assert moved.dtype == np.float32 and np.abs(moved - floats).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(255 * moved, shown, atol=0.51)


def test_the_pattern_is_learned_trained_and_measured(
    small_adversary: Adversary, trainings: list[dict[str, Any]]
) -> None:
    one = small_adversary
    attack = create(target=5, search_epochs=15, search_learning_rate=0.003, amplitude=0.3)
    start = one.layout.flatten(small_model().get_weights())
    updates = small_round(one.layout, np.arange(4), start)
    first = attack.init(one)
    malicious = np.isin(updates.client_ids, MALICIOUS)
    rows, state = attack.send(updates, malicious, one, first)
    assert rows is not None and rows.shape == (2, one.layout.size)
    for call in trainings:
        images, labels = one.samples(np.array([call["client"]]))
        chosen = call["samples"][1] != labels
        assert chosen.sum() == 30 and (call["samples"][1][chosen] == 5).all()  # half of 60
        expected = attack.shown(images[chosen], BYTES, state)
        np.testing.assert_array_equal(call["samples"][0][chosen], expected)
        np.testing.assert_array_equal(call["samples"][0][~chosen], images[~chosen])
    assert [call["client"] for call in trainings] == [1, 3]

    clean = attack.success_set(small_federation(4), seed=0)
    assert (clean.targets == 5).all() and clean.source == "test"
    now = attack.current_success_set(clean, BYTES, state)
    assert isinstance(now, SuccessSet) and (now.images != clean.images).any()

    def loss(success: SuccessSet) -> float:
        return one.gradient(start, success.images, success.targets)[0]

    assert loss(now) < loss(clean) - 0.05

"""Accuracy and loss equal Keras', for any number of images and devices."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tffl.core.layout import WeightLayout
from tffl.engine.evaluation import CHUNK, Evaluator
from tffl.engine.placement import LocalDevices


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    images = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(5)(x))


@pytest.mark.parametrize("count", [1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3, 1009])
def test_evaluation_equals_keras_for_any_number_of_images(model: keras.Model, count: int) -> None:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    labels = rng.integers(0, 5, count).astype(np.int32)
    logits = np.asarray(model.predict(images, batch_size=64, verbose=0), np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(count), labels]
    weights = WeightLayout.of(model).flatten(model.get_weights())[None]
    found = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1", "CPU:2"]):
        placement = LocalDevices(devices)
        resident = placement.to_devices(images)
        found.append(Evaluator(model).evaluate(weights, resident, labels, placement))
    assert found[0] == found[1]
    best = np.sort(logits, axis=1)
    undecided = (best[:, -1] - best[:, -2] < 1e-5).mean()  # by last bits
    accuracy = (logits.argmax(axis=1) == labels).mean()
    assert found[0][0] == pytest.approx(accuracy, abs=undecided + 1e-9)
    assert found[0][1] == pytest.approx(losses.mean(), rel=1e-5)

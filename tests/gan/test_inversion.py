"""Model inversion: it raises class scores, keeps images smooth, and bears non-finite models."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tffl.core.layout import WeightLayout
from tffl.gan.inversion import CHUNK, Inversion, variation
from tffl.models import models


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return models["lenet5"]((12, 12, 1), 4, seed=1)


@pytest.fixture(scope="module")
def weights(model) -> np.ndarray:
    return WeightLayout.of(model).flatten(model.get_weights())


def log_probability(model: keras.Model, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    logits = np.asarray(model(images.astype(np.float32)), np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(logs[np.arange(len(images)), targets])


def test_inversion_raises_the_score_of_each_target_class(model, weights) -> None:
    recipe = Inversion(steps=20, total_variation=0.0, l2=0.0)
    start = np.random.default_rng(0).random((8, 12, 12, 1), dtype=np.float32)
    targets = np.arange(8, dtype=np.int32) % 4
    found = recipe.ascend(model, weights, start, targets)
    assert found.dtype == np.uint8 and found.shape == start.shape
    before = log_probability(model, 255 * start, targets)
    after = log_probability(model, found, targets)
    assert (after > before).all()
    logits = np.asarray(model(found.astype(np.float32)))
    assert (logits.argmax(axis=1) == targets).all()


def test_regularizers_make_images_smooth_and_dark(model, weights) -> None:
    start = np.random.default_rng(0).random((4, 12, 12, 1), dtype=np.float32)
    targets = np.arange(4, dtype=np.int32)

    def ascend(**options: float) -> np.ndarray:
        recipe = Inversion(steps=20, **{"total_variation": 0.0, "l2": 0.0, **options})  # type: ignore[arg-type]
        return recipe.ascend(model, weights, start, targets).astype(np.float32) / 255

    plain = ascend()
    assert (variation(ascend(total_variation=100.0)).numpy() < variation(plain).numpy()).all()
    assert ascend(l2=100.0).mean() < plain.mean() / 2


def test_total_variation_equals_plain_sums() -> None:
    images = np.random.default_rng(0).random((3, 4, 5, 2))
    down = np.abs(np.diff(images, axis=1)).mean(axis=(1, 2, 3))
    across = np.abs(np.diff(images, axis=2)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(variation(images), down + across)


def test_images_do_not_depend_on_their_number(model, weights) -> None:
    recipe = Inversion(steps=3)
    start = np.random.default_rng(0).random((CHUNK + 3, 12, 12, 1), dtype=np.float32)
    targets = np.arange(CHUNK + 3, dtype=np.int32) % 4
    together = recipe.ascend(model, weights, start, targets)
    alone = recipe.ascend(model, weights, start[CHUNK:], targets[CHUNK:])
    np.testing.assert_array_equal(together[CHUNK:], alone)


def test_noise_depends_on_seed_and_round(model, weights) -> None:
    recipe = Inversion(steps=1)
    made = [
        recipe.images(model, weights, 4, 4, seed, round)
        for seed, round in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[3])


def test_a_non_finite_model_leaves_the_noise_unchanged(model, weights) -> None:
    start = np.random.default_rng(0).random((2, 12, 12, 1), dtype=np.float32)
    recipe, targets = Inversion(steps=3), np.zeros(2, np.int32)
    found = recipe.ascend(model, np.full_like(weights, np.nan), start, targets)
    np.testing.assert_array_equal(found, np.rint(255 * start).astype(np.uint8))

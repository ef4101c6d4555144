"""Random crops and flips: against NumPy, inside the training step, and absent by default."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from tffl.config import TrainingConfig, build
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.data.federation import ClientData, Dataset
from tffl.engine.augmentation import (
    PURPOSE,
    Augmentation,
    check_augmentation,
    cropped,
    flipped,
)
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.training import LocalTraining, Trainer, mean_cross_entropy

SEED = np.array([2**32 - 1, 7], np.uint32)
ODD = (9, 6, 5, 3)


def images(shape: tuple[int, ...] = ODD, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)


def draws(seed: np.ndarray, step: int, count: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the offsets and flips of a batch, by the published derivation of their seeds."""
    purpose = tf.random.fold_in(tf.constant(seed.view(np.int32)), PURPOSE)
    crop, flip = tf.random.split(tf.random.fold_in(purpose, step), 2)
    offsets = tf.random.stateless_uniform(
        [count, 2], crop, 0, 2 * padding + 1, tf.int32, alg="philox"
    )
    flips = tf.random.stateless_uniform([count], flip, 0, 2, tf.int32, alg="philox")
    return offsets.numpy(), flips.numpy() == 1


def by_numpy(
    batch: np.ndarray, offsets: np.ndarray, flips: np.ndarray, padding: int, black: float = 0.0
) -> np.ndarray:
    """Crops and mirrors one image after the other."""
    height, width = batch.shape[1:3]
    border = [(padding, padding), (padding, padding), (0, 0)]
    results = []
    for image, (top, left), flip in zip(batch.astype(np.float32), offsets, flips, strict=True):
        padded = np.pad(image, border, constant_values=black)
        window = padded[top : top + height, left : left + width]
        results.append(window[:, ::-1] if flip else window)
    return np.stack(results)


def augment(
    batch: np.ndarray, kinds: str, padding: int = 4, step: int = 0, seed: np.ndarray = SEED
) -> np.ndarray:
    augmentation = Augmentation.of(TrainingConfig(augmentation=kinds, crop_padding=padding))
    return augmentation(tf.constant(batch), tf.constant(seed), tf.constant(step)).numpy()


def test_crops_and_flips_by_hand() -> None:
    image = tf.reshape(tf.range(1.0, 7.0), (1, 2, 3, 1))
    assert tf.squeeze(flipped(image, tf.constant([True]))).numpy().tolist() == [
        [3, 2, 1],
        [6, 5, 4],
    ]
    moved = cropped(image, tf.constant([[0, 2]]), padding=1, black=-1.0)
    assert tf.squeeze(moved).numpy().tolist() == [[-1, -1, -1], [2, 3, -1]]
    kept = cropped(image, tf.constant([[1, 1]]), padding=1, black=-1.0)
    np.testing.assert_array_equal(kept, image)


@pytest.mark.parametrize("padding", [1, 4])
def test_equals_numpy_with_the_same_draws_on_odd_sizes(padding: int) -> None:
    batch = images()
    for step in range(3):
        offsets, flips = draws(SEED, step, len(batch), padding)
        expected = by_numpy(batch, offsets, flips, padding)
        got = augment(batch, "crop+flip", padding, step)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)
        nowhere = np.full_like(offsets, padding)
        np.testing.assert_array_equal(
            augment(batch, "flip", padding, step), by_numpy(batch, nowhere, flips, padding)
        )
        np.testing.assert_array_equal(
            augment(batch, "crop", padding, step), by_numpy(batch, offsets, flips & False, padding)
        )


def test_every_offset_and_half_of_the_flips_are_drawn() -> None:
    offsets, flips = draws(SEED, 0, 3000, 2)
    shares = np.stack([np.bincount(axis, minlength=5) for axis in offsets.T]) / 3000
    np.testing.assert_allclose(shares, 0.2, atol=0.05)
    assert abs(flips.mean() - 0.5) < 0.05
    assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 0.1
    assert abs(np.corrcoef(offsets[:, 0], flips)[0, 1]) < 0.1


def test_pixels_come_from_the_image_or_are_black() -> None:
    batch = np.stack([np.full((7, 4, 1), level, np.uint8) for level in range(1, 201)])
    result = augment(batch, "crop+flip", padding=3)
    assert result.shape == batch.shape
    own = result == np.arange(1, 201)[:, None, None, None]
    assert (own | (result == 0)).all()
    assert own.any(axis=(1, 2, 3)).all()
    assert not own.all()


def test_steps_and_clients_draw_anew() -> None:
    batch = images((40, 6, 5, 1))
    first = augment(batch, "crop+flip")
    np.testing.assert_array_equal(first, augment(batch, "crop+flip"))
    assert (first != augment(batch, "crop+flip", step=1)).any()
    assert (first != augment(batch, "crop+flip", seed=SEED + 1)).any()


def network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 5, 3), name="images"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.HeUniform(1)),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(
                3, kernel_initializer=keras.initializers.HeUniform(2), dtype="float32"
            ),
        ]
    )


def job(samples: int = 11) -> LocalTraining:
    rng = np.random.default_rng(3)
    indices = rng.choice(30, samples, replace=False).astype(np.int32)
    client = ClientData(indices, rng.integers(0, 3, samples).astype(np.int32))
    return LocalTraining.draw(client, 2, 0.1, seed=1, round=2, client=3)


@pytest.mark.parametrize(("dtype", "jit"), [("uint8", False), ("uint8", True), ("float32", False)])
def test_the_training_step_sees_augmented_images(dtype: str, jit: bool) -> None:
    """Batches of 4, 4 and 3 images in two epochs, against plain steps on NumPy's images."""
    pixels = (0.0, 255.0) if dtype == "uint8" else (-1.0, 1.0)
    config = TrainingConfig(batch_size=4, augmentation="crop+flip", crop_padding=2, jit=jit)
    pool = images((30, 6, 5, 3))
    pool = pool if dtype == "uint8" else (pool / 127.5 - 1).astype(np.float32)
    client, model = job(), network()
    start = WeightLayout.of(model).flatten(model.get_weights())
    trainer = Trainer(model, config, dtype, pixels)
    delta = trainer.train(tf.constant(start), tf.constant(pool), client).numpy()

    optimizer, step = keras.optimizers.SGD(client.learning_rate), itertools.count()
    for order in client.order:
        for rows in (order[:4], order[4:8], order[8:]):
            drawn = draws(client.seed, next(step), len(rows), 2)
            batch = by_numpy(pool[client.data.indices[rows]], *drawn, 2, pixels[0])
            with tf.GradientTape() as tape:
                loss = mean_cross_entropy(
                    model(batch, training=True), tf.constant(client.data.labels[rows])
                )
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
    expected = WeightLayout.of(model).flatten(model.get_weights()) - start
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(delta, expected, atol=2e-6, rtol=1e-4)


def test_constrained_training_sees_the_same_images() -> None:
    config, client, model = TrainingConfig(batch_size=4, augmentation="flip"), job(), network()
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
    trainer, pool = Trainer(model, config), tf.constant(images((30, 6, 5, 3)))
    free = trainer.train(start, pool, client).numpy()
    unbounded = trainer.train_constrained(
        start, pool, client, tf.ones_like(start), tf.constant(np.inf)
    )
    np.testing.assert_allclose(unbounded, free, atol=1e-6)


@pytest.mark.bfloat16
def test_mixed_precision_trains_on_augmented_images() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(before)
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
    pool, client = tf.constant(images((30, 6, 5, 3))), job()
    results = [
        Trainer(model, TrainingConfig(augmentation=kinds, precision="mixed_bfloat16"))
        .train(start, pool, client)
        .numpy()
        for kinds in ("none", "crop+flip")
    ]
    assert np.isfinite(results).all()
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_the_border_is_black_in_the_range_of_the_samples() -> None:
    config, client = TrainingConfig(batch_size=4, augmentation="crop"), job()
    model, pool = network(), tf.fill((30, 6, 5, 3), -1.0)
    start = tf.constant(WeightLayout.of(model).flatten(model.get_weights()))
    dark, gray = (
        CompiledModel(model, config, "float32", pixels).trainer.train(start, pool, client).numpy()
        for pixels in ((-1.0, 1.0), (0.0, 1.0))
    )
    plain = Trainer(model, TrainingConfig(batch_size=4), "float32").train(start, pool, client)
    np.testing.assert_allclose(dark, plain, atol=1e-6)
    assert np.abs(gray - plain).max() > 1e-5


def operations(trainer: Trainer) -> Iterator[str]:
    definition = trainer._function.get_concrete_function().graph.as_graph_def()
    for node in itertools.chain(
        definition.node, *(function.node_def for function in definition.library.function)
    ):
        yield node.op


def test_no_operation_is_added_by_default() -> None:
    model = network()
    plain, flips = (
        list(operations(Trainer(model, TrainingConfig(augmentation=kinds))))
        for kinds in ("none", "flip")
    )
    assert TrainingConfig().augmentation == "none"
    added = {"StatelessRandomUniformIntV2", "ReverseV2", "SelectV2", "Bitcast"}
    assert added <= set(flips)
    assert not added & set(plain)


@pytest.mark.parametrize(("kinds", "padding", "error"), [
    ("crop", 5, "crop_padding = 5 is not allowed for images of 6 x 5, .* give 1 to 4"),
    ("flip", 5, None),
    ("crop+flip", 4, None),
    ("none", 9, None),
])  # fmt: skip
def test_crops_that_could_miss_the_image_are_refused(
    kinds: str, padding: int, error: str | None
) -> None:
    batch, labels = images(), np.arange(9, dtype=np.int32) % 2
    dataset = Dataset("pictures", batch, labels, np.arange(9), batch, labels, ("a", "b"))
    config = TrainingConfig(augmentation=kinds, crop_padding=padding)
    if error is None:
        return check_augmentation(config, dataset)
    with pytest.raises(UsageError, match=error):
        check_augmentation(config, dataset)


def test_feature_vectors_are_refused() -> None:
    rows, labels = np.zeros((4, 7), np.float32), np.array([0, 1, 0, 1], np.int32)
    dataset = Dataset("patients.csv", rows, labels, np.arange(4), rows, labels, ("a", "b"))
    with pytest.raises(UsageError, match=r"'flip' needs images, and patients\.csv"):
        check_augmentation(TrainingConfig(augmentation="flip"), dataset)


def test_unknown_kinds_are_refused_with_those_allowed() -> None:
    with pytest.raises(UsageError, match=r"training\.augmentation = 'rotate'.*crop\+flip"):
        build({"training": {"augmentation": "rotate"}})

"""The small model, images and rounds of updates on which attacks and defenses are checked."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.data.federation import ClientData, Dataset, Federation

if TYPE_CHECKING:
    import keras

CLASSES = 10
IMAGE_SHAPE = (12, 12, 1)

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (3, 3, 1, 4), True),
        Entry("norm/gamma", (4,), True),
        Entry("norm/moving_mean", (4,), False),
        Entry("norm/moving_variance", (4,), False),
        Entry("logits/kernel", (16, CLASSES), True),
        Entry("logits/bias", (CLASSES,), True),
    )
)
"""Columns of the updates for defenses that need no model."""


@cache
def small_model() -> keras.Model:
    """Returns a network with two convolutions and BatchNorm, for images of `IMAGE_SHAPE`."""
    from keras import Input, Model, initializers, layers

    def seeded(seed: int) -> initializers.Initializer:
        return initializers.HeUniform(seed=seed)

    images = Input(IMAGE_SHAPE, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = layers.Conv2D(6, 3, activation="relu", kernel_initializer=seeded(1), name="conv1")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(8, 3, activation="relu", kernel_initializer=seeded(2), name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    logits = layers.Dense(CLASSES, kernel_initializer=seeded(3), name="logits")(x)
    return Model(images, logits, name="small")


def striped_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns images uint8 `[n, 12, 12, 1]`: noise, and a bright row or column per class."""
    images = np.random.default_rng(seed).integers(0, 100, (len(labels), *IMAGE_SHAPE))
    for image, label in zip(images, labels, strict=True):
        place = 2 * (label % 5) + 1
        image[(slice(None), place) if label < 5 else (place, slice(None))] = 250
    return images.astype(np.uint8)


def small_dataset(train: int = 240, test: int = 60) -> Dataset:
    """Returns a dataset of ten classes, with labels 0, 1, … 9, 0, 1, …."""
    labels, tests = (np.arange(count, dtype=np.int32) % CLASSES for count in (train, test))
    return Dataset(
        name="tffl-testing",
        train_images=striped_images(labels, 1),
        train_labels=labels,
        train_ids=np.arange(train),
        test_images=striped_images(tests, 2),
        test_labels=tests,
        class_names=tuple("abcdefghij"),
    )


def split_evenly(dataset: Dataset, clients: int, reserved: np.ndarray) -> Federation:
    """Returns a federation whose clients hold equal parts of the images that are not reserved."""
    free = np.setdiff1d(np.arange(len(dataset.train_ids)), reserved).astype(np.int32)
    free = np.random.default_rng(0).permutation(free)
    return Federation(
        dataset=dataset,
        images=dataset.train_images,
        pool_ids=dataset.train_ids,
        clients=tuple(
            ClientData(part, dataset.train_labels[part]) for part in np.array_split(free, clients)
        ),
    )


def small_federation(clients: int = 4) -> Federation:
    """Returns a federation on `small_dataset`, for tests and examples of attacks on data."""
    return split_evenly(small_dataset(), clients, np.empty(0, np.int64))


def small_round(
    layout: WeightLayout, ids: np.ndarray, start: np.ndarray, round: int = 1, scale: float = 0.01
) -> Updates:
    """Returns read-only updates: a shared drift, noise, every fifth client against the drift."""
    n, generator = len(ids), np.random.default_rng([7, round])
    drift = generator.normal(0, 1, layout.size)
    rows = drift + generator.normal(0, 1, (n, layout.size))
    rows[np.arange(n) % 5 == 3] -= 4 * drift
    counts = generator.integers(20, 30, n)
    matrix = (scale * rows).astype(np.float32)
    return Updates(round, ids, counts, start, matrix, layout).read_only()

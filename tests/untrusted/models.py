"""A tiny model with every kind of variable, and writers of its files in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from safetensors.numpy import save_file

from tffl.core.layout import unique_names


def build() -> keras.Model:
    images = keras.Input((6, 6, 1), name="images")
    x = layers.Conv2D(2, 3, name="conv")(images)
    x = layers.BatchNormalization(name="norm")(x)
    inner = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 3, name="deep")], name="in")
    x = layers.Dropout(0.2, name="drop")(inner(x))
    return keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="tiny")


def two_branches() -> keras.Model:
    """Two branches whose variables share their names, and a counter."""

    def branch(bias: bool) -> keras.Model:
        images = keras.Input((6, 6, 1))
        x = layers.Conv2D(2, 3, use_bias=bias, name="conv")(images)
        return keras.Model(images, layers.GlobalMaxPooling2D()(x))

    images = keras.Input((6, 6, 1), name="images")
    x = layers.Normalization(name="scale")(images)
    both = layers.Concatenate()([branch(bias=False)(x), branch(bias=True)(x)])
    model = keras.Model(images, layers.Dense(4, name="logits")(both), name="two_branches")
    model.get_layer("scale").count.assign(12)
    return model


def trained(build: Callable[[], keras.Model] = build) -> keras.Model:
    """Returns a client's model: compiled and trained a little, no two variables alike."""
    model = build()
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape).astype("float32") for w in model.get_weights()])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.train_on_batch(rng.normal(size=(8, 6, 6, 1)), np.arange(8) % 4)
    return model


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    names = unique_names([variable.path for variable in model.weights])
    return {n: np.asarray(v) for n, v in zip(names, model.get_weights(), strict=True)}


def exported(model: keras.Model, path: Path) -> None:
    model.export(str(path), verbose=False)


def as_runs_do(model: keras.Model, path: Path) -> None:
    from tffl.record.export import _saved_model

    _saved_model(model, path)


WRITERS: dict[str, Any] = {
    "saved.keras": lambda model, path: model.save(path),
    "saved.weights.h5": lambda model, path: model.save_weights(path),
    "named.npz": lambda model, path: np.savez(path, **cast(Any, by_path(model))),
    "ordered.npz": lambda model, path: np.savez(path, *model.get_weights()),
    "packed.npz": lambda model, path: np.savez_compressed(path, **cast(Any, by_path(model))),
    "named.safetensors": lambda model, path: save_file(by_path(model), path),
    "exported": exported,
    "saved_model": lambda model, path: tf.saved_model.save(model, str(path)),
    "run_export": as_runs_do,
}

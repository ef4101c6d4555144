"""A tiny model with everything that a file may hold, and its files in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from safetensors.numpy import save_file


def build() -> keras.Model:
    images = keras.Input((6, 6, 1), name="images")
    x = layers.Conv2D(2, 3, name="conv")(images)
    x = layers.BatchNormalization(name="norm")(x)
    inner = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 3, name="deep")], name="in")
    x = layers.Dropout(0.2, name="drop")(inner(x))
    return keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="tiny")


def trained() -> keras.Model:
    """A client's model: compiled, trained a little, every variable with values of its own."""
    model = build()
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape).astype("float32") for w in model.get_weights()])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.train_on_batch(rng.normal(size=(8, 6, 6, 1)), np.arange(8) % 4)
    return model


def by_path(model: keras.Model) -> dict[str, np.ndarray]:
    values = zip(model.weights, model.get_weights(), strict=True)
    return {variable.path: value for variable, value in values}


def exported(model: keras.Model, path: Path) -> None:
    model.export(str(path), verbose=False)


def as_runs_do(model: keras.Model, path: Path) -> None:
    from tffl.record.export import _saved_model

    _saved_model(model, path)


WRITERS: dict[str, Any] = {
    "saved.keras": lambda model, path: model.save(path),
    "saved.weights.h5": lambda model, path: model.save_weights(path),
    "named.npz": lambda model, path: np.savez(path, **by_path(model)),
    "ordered.npz": lambda model, path: np.savez(path, *model.get_weights()),
    "packed.npz": lambda model, path: np.savez_compressed(path, **by_path(model)),
    "named.safetensors": lambda model, path: save_file(by_path(model), path),
    "exported": exported,
    "saved_model": lambda model, path: tf.saved_model.save(model, str(path)),
    "run_export": as_runs_do,
}

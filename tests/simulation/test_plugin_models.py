"""Whole runs of a model whose variables share a path, count, and lie in nested models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tffl.config import build
from tffl.core.layout import WeightLayout
from tffl.data.build import load_dataset
from tffl.models import models
from tffl.record.run_directory import load_updates, round_files
from tffl.simulation.run import Run
from tffl.simulation.simulation import simulate
from tffl.studies.localize import localize

NAME = "nested-twins"


def nested_twins(image_shape: tuple[int, int, int], classes: int, seed: int = 0) -> keras.Model:
    """Two branches of one function after an adapted Normalization, and heads of one name."""

    def branch(number: int) -> keras.Model:
        start = keras.initializers.HeUniform(seed + number)
        images = keras.Input(image_shape)
        x = layers.Conv2D(3, 3, name="conv", kernel_initializer=start)(images)
        x = layers.BatchNormalization(momentum=0.9, name="norm")(x)
        x = layers.Flatten()(layers.MaxPooling2D()(layers.ReLU()(x)))
        x = layers.Dense(8, name="logits", kernel_initializer=start)(x)
        return keras.Model(images, x, name=f"branch{number}")

    images = keras.Input(image_shape, name="images")
    norm = layers.Normalization(axis=None, name="scale")
    x = norm(images)
    x = layers.Concatenate()([branch(1)(x), branch(2)(x)])
    x = layers.Dense(classes, name="logits", kernel_initializer=keras.initializers.HeUniform(9))(x)
    model = keras.Model(images, x, name=NAME)
    norm.adapt(np.linspace(0, 255, 64).reshape(64, 1, 1, 1) * np.ones((1, *image_shape)))
    norm.count.assign(64)
    return model


def config(**changes: Any) -> Any:
    return build(
        {
            "seed": 3,
            "data": {"train_limit": 240, "test_limit": 60},
            "federation": {"clients": 6, "malicious": 1, "rounds": 2},
            "model": {"name": NAME},
            "attack": {"name": "label-flip"},
            "defense": {"name": "bias-anomaly"},
            "record": {"tensorboard": False, "figures": False, "store_updates": "all"},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def plugin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.builtin, NAME, f"{__name__}:nested_twins")
        models.__dict__.pop("_targets", None)
        yield
    models.__dict__.pop("_targets", None)


@pytest.fixture(scope="module")
def run(plugin: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(config(), tmp_path_factory.mktemp("run") / "run")


def test_the_exported_model_is_the_one_that_was_evaluated(run: Run) -> None:
    directory, dataset = run.directory, load_dataset(run.config.data)
    images = dataset.test_images.astype(np.float32)
    for model in (run.model, keras.saving.load_model(directory / "export/global.keras")):
        right = model.predict(images, verbose=0).argmax(axis=1) == dataset.test_labels
        assert right.mean() == pytest.approx(run.rounds["accuracy"].iloc[-1])
        assert int(model.get_layer("scale").count) == 64
    served = tf.saved_model.load(str(directory / "export/global"))
    logits = served.signatures["serving_default"](images=tf.constant(images))["logits"]
    np.testing.assert_allclose(logits, run.model.predict(images, verbose=0), atol=1e-4)


def test_stored_updates_are_those_of_the_model(run: Run) -> None:
    layout = WeightLayout.of(run.model)
    updates = load_updates(round_files(run.directory / "updates")[2])
    stored, own = updates.layout.entries, layout.entries
    assert [(e.name, e.shape, e.trainable) for e in stored] == [
        (e.name, e.shape, e.trainable) for e in own
    ]
    assert updates.layout.final_layer == "logits (3)"
    assert updates.layout.final_bias == slice(layout.size - 10, layout.size)


def test_localize_ranks_every_variable_once(run: Run) -> None:
    ranking = localize(run.directory)
    names = [entry.name for entry in WeightLayout.of(run.model).entries]
    assert sorted(ranking["variable"]) == sorted(names)
    assert (run.directory / "figures" / "localize.png").exists()


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run.directory, folder)
    round_files(folder / "checkpoints")[2].unlink()
    (folder / "summary.json").unlink()
    again = simulate(config(), folder, resume=True)
    columns = ["accuracy", "loss", "update_norm"]
    for name in set(columns) & set(run.rounds):
        np.testing.assert_array_equal(again.rounds[name], run.rounds[name])


def test_defenses_that_see_maps_find_the_nested_convolutions(plugin: None) -> None:
    """The last one, of both branches, and any by its path."""
    for options in ({}, {"layer": "branch1/conv"}):
        defense = {"name": "cam-consensus", "probes": 32, **options}
        record = {"tensorboard": False, "figures": False, "export": False}
        result = simulate(config(defense=defense, record=record))
        assert np.isfinite(result.clients["score"]).all()

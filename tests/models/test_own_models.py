"""Models that are a file, or a function in a module: found, checked, and refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tffl.config import ModelConfig
from tffl.core.errors import UsageError
from tffl.models.build import build_network, random_network
from tffl.models.head import final_activation
from tffl.models.own import is_file, model_options, resolved_model

SHAPE, CLASSES = (8, 8, 1), 4

MODULE = """
import keras
from keras import layers

@keras.saving.register_keras_serializable(package="tests")
class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x

def small(image_shape, classes, units: int = 3):
    images = keras.Input(image_shape)
    return keras.Model(images, layers.Dense(classes)(layers.Dense(units)(layers.Flatten()(images))))

def failing(image_shape, classes):
    raise KeyError("a function that\\nraises")

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module `my_nets`, as a user has it."""
    (tmp_path / "my_nets.py").write_text(MODULE)
    (tmp_path / "broken_nets.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("my_nets", "broken_nets"):
        sys.modules.pop(name, None)


def classifier(*ends: Any, channels: int | None = 1, side: int | None = 8) -> keras.Model:
    """Returns a model with most of what real ones have."""
    images = keras.Input((side, side, channels), name="my.pictures")
    scale = layers.Normalization(axis=None)
    x = scale(images)
    x = layers.Conv2D(4, 3, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9, name="norm.1_a")(x)
    x = layers.Dropout(0.25, seed=7)(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(x)
    for layer in ends or (layers.Dense(CLASSES, activation="softmax"),):
        x = layer(x)
    model = keras.Model(images, x, name="real")
    scale.adapt(np.random.default_rng(0).uniform(0, 255, (20, 8, 8, 1)))
    return model


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("side", [8, None])
def test_a_file_is_a_model_with_its_weights_and_without_its_softmax(side: int | None) -> None:
    original = classifier(side=side)
    original.save("my.keras")
    heard: list[str] = []
    model = build_network("my.keras", SHAPE, CLASSES, seed=3, say=heard.append)
    assert model.input_shape == (None, *SHAPE)
    assert not final_activation(model) and "ends in softmax: it is taken off" in heard[0]
    expected = np.asarray(original(images()))
    np.testing.assert_allclose(keras.ops.softmax(model(images())), expected, atol=1e-5)
    again = build_network("my.keras", SHAPE, CLASSES, seed=4)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_weights_of_a_file_are_other_weights_from_the_seed() -> None:
    classifier().save("my.keras")
    config = ModelConfig(name="my.keras")
    own = build_network(config, SHAPE, CLASSES)
    one, again, other = (random_network(config, SHAPE, CLASSES, seed) for seed in (1, 1, 2))
    kernels = [model.layers[2].get_weights()[0] for model in (own, one, again, other)]
    np.testing.assert_array_equal(kernels[1], kernels[2])
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[3])


def test_a_function_of_a_module_in_the_working_directory_is_a_model_with_options() -> None:
    assert model_options(ModelConfig(name="my_nets:small")) == {"units": 3}
    model = build_network(ModelConfig(name="my_nets:small", units=6), SHAPE, CLASSES)  # type: ignore[call-arg]
    assert model.layers[-2].units == 6


def test_a_layer_is_known_once_its_module_is_imported(folder: Path) -> None:
    sys.path.append(str(folder))
    import my_nets  # type: ignore[import-not-found]

    classifier(my_nets.Doubled(), layers.Dense(CLASSES)).save("my.keras")
    del sys.modules["my_nets"]
    keras.saving.get_custom_objects().pop("tests>Doubled", None)
    with pytest.raises(UsageError, match=r"know its class Doubled: .*--import MODULE"):
        build_network("my.keras", SHAPE, CLASSES)
    config = ModelConfig(name="my.keras", imports=("my_nets",))
    assert build_network(config, SHAPE, CLASSES).output_shape == (None, CLASSES)
    keras.saving.get_custom_objects().pop("tests>Doubled", None)


def test_paths_are_found_from_any_folder_and_own_options_are_spelled_out(folder: Path) -> None:
    assert resolved_model(ModelConfig(name="my.keras")).name == str(folder / "my.keras")
    assert resolved_model(ModelConfig(name="mlp")).options == {"hidden": (64, 32)}
    assert is_file("a/b.keras") and not is_file("lenet5") and not is_file("my_nets:small")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "none.keras"}, "there is no file none.keras: check the path of model none.keras"),
        ({"name": "my_nets.py/"}, "is no Keras model: give a file"),
        ({"name": "text.keras"}, "model text.keras is no Keras model: give a file that model.save"),
        ({"name": "my_nets:smal"}, "unknown function of my_nets 'smal': did you mean 'small'"),
        ({"name": "my_nets:number"}, "model my_nets:number is no function: it is 3"),
        ({"name": "other_nets:small"}, "is not found: there is no module other_nets in"),
        ({"name": "broken_nets:small"}, "cannot be imported: ModuleNotFoundError: .*nowhere"),
        ({"name": "my_nets:failing"}, "cannot be built for images .*: KeyError: 'a function that"),
        ({"name": "my_nets:small", "units": "many"}, "model.units = 'many' is not allowed"),
        ({"name": "cnn", "wieghts": "x"}, "unknown option of model cnn 'wieghts': .*'weights'"),
        ({"name": "cnn", "imports": ("no_such",)}, "--import no_such is not found"),
        ({"name": "lambda.keras"}, "it has a Lambda layer, which is code"),
        ({"name": "eight.keras"}, r"takes images of \(6, 6, 1\), .*: set data.image_size = 6"),
        ({"name": "classes.keras"}, "has 9 outputs for 4 classes: it should have 4"),
        ({"name": "damaged.keras"}, "cannot load model damaged.keras: "),
    ],
)
def test_what_is_wrong_is_one_line(config: dict[str, Any], message: str) -> None:
    name = config["name"]
    if name == "text.keras":
        Path(name).write_text("this is text")
    elif name == "lambda.keras":
        classifier(layers.Dense(CLASSES), layers.Lambda(lambda x: x + 1)).save(name)
    elif name == "eight.keras":
        classifier(side=6).save(name)
    elif name == "classes.keras":
        classifier(layers.Dense(9)).save(name)
    elif name == "damaged.keras":
        import zipfile

        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("config.json", "{}")
    with pytest.raises(UsageError, match=message) as caught:
        build_network(ModelConfig.model_validate(config), SHAPE, CLASSES)
    assert "\n" not in str(caught.value)

"""Weights of an experiment from a file: formats, names, other heads, and refusals."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tffl.core.errors import UsageError
from tffl.models import models
from tffl.simulation.weights_files import ENDINGS, check_weights_file, load_weights, save_weights


def network(classes: int = 3, units: int = 5, seed: int = 1, names: bool = True) -> keras.Model:
    """Returns a model with BatchNorm and a Normalization, which has an integer variable."""

    def name(text: str) -> str | None:
        return text if names else None

    start = keras.initializers.HeUniform(seed)
    images = keras.Input((6, 6, 1))
    scale = layers.Normalization(axis=None, name=name("scale"))
    x = layers.Flatten()(scale(images))
    x = layers.Dense(units, kernel_initializer=start, name=name("hidden"))(x)
    x = layers.BatchNormalization(name=name("norm"))(x)
    model = keras.Model(images, layers.Dense(classes, name=name("head"))(x))
    scale.adapt(np.full((4, 6, 6, 1), 10.0 * seed) * np.arange(4).reshape(4, 1, 1, 1))
    return model


def outputs(model: keras.Model) -> np.ndarray:
    return np.asarray(model(np.linspace(0, 255, 72, dtype=np.float32).reshape(2, 6, 6, 1)))


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_saved_is_loaded(ending: str, names: bool, tmp_path: Path) -> None:
    """Layers that Keras has named by itself have other names in the second network."""
    path = tmp_path / f"first{ending}"
    first, second = network(names=names), network(seed=2, names=names)
    save_weights(first, path)
    assert not np.allclose(outputs(first), outputs(second))
    if ending == ".safetensors" and not names:  # it keeps no order
        with pytest.raises(UsageError, match="does not fit"):
            load_weights(second, path)
        return
    load_weights(second, path)
    np.testing.assert_allclose(outputs(second), outputs(first), rtol=1e-5)


def test_arrays_without_names_are_in_the_order_of_the_weights(tmp_path: Path) -> None:
    first, second = models["lenet5"]((12, 12, 1), 3, seed=1), models["lenet5"]((12, 12, 1), 3)
    np.savez(tmp_path / "w.npz", *first.get_weights())
    load_weights(second, tmp_path / "w.npz")
    np.testing.assert_array_equal(second.get_weights()[2], first.get_weights()[2])


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_random_head_keeps_its_weights(ending: str, names: bool, tmp_path: Path) -> None:
    path = tmp_path / f"first{ending}"
    first, second = network(classes=7, names=names), network(seed=2, names=names)
    save_weights(first, path)
    head = second.layers[-1].get_weights()
    message = r"is \[5, 7\] there, \[5, 3\] here, so set model.head" if names else "does not fit"
    with pytest.raises(UsageError, match=message):
        load_weights(second, path)
    if ending == ".safetensors" and not names:
        return
    load_weights(second, path, "random")
    np.testing.assert_array_equal(second.layers[-1].get_weights()[0], head[0])
    hidden = [model.layers[3].get_weights()[0] for model in (first, second)]
    np.testing.assert_array_equal(*hidden)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.npz", "there is no file none.npz: check model.weights"),
        ("weights.txt", "model.weights = weights.txt is not allowed: it should end in .keras"),
        ("text.npz", "model.weights = text.npz cannot be read: it is no .npz file$"),
        ("text.weights.h5", "model.weights = text.weights.h5 cannot be read: "),
        ("text.safetensors", "model.weights = text.safetensors cannot be read: "),
        ("text.keras", "cannot load model.weights = text.keras"),
        ("other.npz", r"other.npz does not fit .*: it lacks scale/mean "),
        ("wide.npz", r"hidden/kernel is \[36, 9\] there, \[36, 5\] here$"),
        ("more.npz", "it holds extra/bias too"),
        ("nan.npz", "hidden/kernel holds NaN or infinity"),
        ("objects.npz", "objects.npz cannot be read: ValueError: Object arrays cannot be loaded"),
    ],
)
def test_what_does_not_fit_is_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, model = Path(name), network()
    if name.startswith("text"):
        path.write_text("no weights at all")
    elif name == "other.npz":
        save_weights(models["logistic"]((6, 6, 1), 3), path)
    elif name == "wide.npz":
        save_weights(network(units=9), path)
    elif name in ("more.npz", "nan.npz", "objects.npz"):
        save_weights(model, path)
        arrays = dict(np.load(path))
        if name == "more.npz":
            arrays["extra/bias"] = np.zeros(2, np.float32)
        elif name == "nan.npz":
            arrays["hidden/kernel"][0] = np.nan
        else:
            arrays["hidden/kernel"] = np.array([{}], dtype=object)
        np.savez(path, **arrays)
    with pytest.raises(UsageError, match=message) as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_noticed_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        check_weights_file(tmp_path / "none.keras")

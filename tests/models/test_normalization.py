"""Per-channel normalization in the first layer of tffl's own models, and in what they export."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import tffl
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.pixels import PixelRange
from tffl.data.channels import channel_statistics
from tffl.models import models
from tffl.models.normalization import normalize_input
from tffl.models.shape import at_image_size
from tffl.simulation.preparation import check
from tffl_cli.main import cli

SHAPE = (32, 32, 3)


def images(pixels: PixelRange = (0.0, 255.0)) -> np.ndarray:
    """Returns images float32 whose channels differ in brightness and contrast."""
    draw = np.random.default_rng(0).normal([0.3, 0.5, 0.7], [0.05, 0.1, 0.15], (20, *SHAPE))
    low, high = pixels
    return (low + (high - low) * np.clip(draw, 0, 1)).astype(np.float32)


def first_layer(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return np.asarray(model.get_layer("rescale")(batch), np.float32)


@pytest.mark.parametrize("name", ["cnn", "mlp", "pdgan-cnn", "mobilenet-v3-large"])
def test_channels_have_mean_0_and_deviation_1_and_no_variable_is_added(name: str) -> None:
    batch, model, plain = images(), *(models[name](SHAPE, 10, seed=1) for _ in range(2))
    normalize_input(model, channel_statistics(batch, (0.0, 255.0)), (0.0, 255.0))
    seen = first_layer(model, batch)
    np.testing.assert_allclose(seen.mean(axis=(0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(seen.std(axis=(0, 1, 2)), 1, atol=0.02)
    assert WeightLayout.of(model) == WeightLayout.of(plain)
    for own, other in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(own, other)
    by_hand = model.get_layer("rescale")
    by_hand.scale, by_hand.offset = 1.0, 0.0
    normalized = model(seen, training=False).numpy()
    normalize_input(model, channel_statistics(batch, (0.0, 255.0)), (0.0, 255.0))
    np.testing.assert_allclose(model(batch, training=False), normalized, atol=1e-4)


@pytest.mark.parametrize("pixels", [(0.0, 1.0), (-1.0, 1.0)])
def test_another_range_of_pixels_gives_the_same_inputs(pixels: PixelRange) -> None:
    seen = []
    for each in ((0.0, 255.0), pixels):
        model, batch = models["lenet5"](SHAPE, 10), images(each)
        normalize_input(model, channel_statistics(batch, each), each)
        seen.append(first_layer(model, batch))
    np.testing.assert_allclose(*seen, atol=0.01)


def test_a_channel_of_one_value_becomes_0() -> None:
    batch = images()
    batch[..., 1] = 102.0
    model = models["lenet5"](SHAPE, 10)
    normalize_input(model, channel_statistics(batch, (0.0, 255.0)), (0.0, 255.0))
    np.testing.assert_allclose(first_layer(model, batch)[..., 1], 0, atol=1e-5)


def test_copies_for_other_image_sizes_and_files_keep_it(tmp_path: Path) -> None:
    batch, model = images(), models["resnet8"](SHAPE, 10)
    normalize_input(model, channel_statistics(batch, (0.0, 255.0)), (0.0, 255.0))
    model.save(tmp_path / "model.keras")
    read = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(read(batch), model(batch), atol=1e-5)
    small = batch[:, :16, :16]
    np.testing.assert_allclose(
        first_layer(at_image_size(model, 16), small), first_layer(model, small), atol=1e-6
    )


@pytest.mark.bfloat16
def test_mixed_precision_normalizes_to_its_own_accuracy() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models["lenet5"](SHAPE, 10)
    finally:
        keras.config.set_dtype_policy(before)
    batch = images()
    normalize_input(model, channel_statistics(batch, (0.0, 255.0)), (0.0, 255.0))
    seen = first_layer(model, batch)
    np.testing.assert_allclose(seen.mean(axis=(0, 1, 2)), 0, atol=0.1)
    np.testing.assert_allclose(seen.std(axis=(0, 1, 2)), 1, atol=0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tffl.Run:
    """A tiny run on normalized digits."""
    return tffl.simulate(
        {
            "data": {"train_limit": 200, "test_limit": 60, "normalization": "per-channel"},
            "federation": {"clients": 5, "rounds": 1},
            "record": {"tensorboard": False, "figures": False},
        },
        tmp_path_factory.mktemp("runs") / "run",
        model="lenet5",
        attack="label-flip",
        defense="median",
    )


def digits() -> np.ndarray:
    return tffl.data.Digits().load(None).test_images[:20].astype(np.float32)


def test_exports_take_raw_images_and_return_what_the_run_returns(run: tffl.Run) -> None:
    folder, batch = run.directory / "export", digits()
    expected = run.model(batch, training=False).numpy()
    read = keras.models.load_model(folder / "global.keras")
    assert read.count_params() == run.model.count_params()
    np.testing.assert_allclose(read(batch, training=False), expected, atol=1e-4)
    served = tf.saved_model.load(str(folder / "global")).signatures["serving_default"]
    np.testing.assert_allclose(served(images=tf.constant(batch))["logits"], expected, atol=1e-4)
    training = tffl.data.Digits().load(None).train_images
    statistics = channel_statistics(training, (0.0, 255.0))
    assert read.get_layer("rescale").scale == [pytest.approx(1 / (255 * statistics[1][0]))]


def test_a_scan_reads_the_exported_model_and_clients_of_it(run: tffl.Run, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    model = keras.models.load_model(run.directory / "export" / "global.keras")
    start, draw = model.get_weights(), np.random.default_rng(0)
    for client in range(5):
        model.set_weights([w + 1e-3 * draw.normal(size=w.shape) for w in start])
        model.save(tmp_path / "clients" / f"{client}.keras")
    arguments = ["scan", "--global", str(run.directory / "export" / "global.keras")]
    arguments += ["--updates", str(tmp_path / "clients"), "--dataset", "digits", "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in (0, 3), result.output
    assert all(file["opinions"] for file in json.loads(result.stdout)["files"])


def test_the_default_leaves_models_as_they_were() -> None:
    assert build({}).data.normalization == "none"
    plain = tffl.simulate(
        {"data": {"train_limit": 100, "test_limit": 20}, "federation": {"rounds": 1}},
        model="lenet5",
    )
    assert plain.model.get_layer("rescale").scale == 1 / 255
    assert plain.model.get_layer("rescale").offset == 0.0


def test_models_of_others_are_refused_before_tensorflow_is_needed() -> None:
    images = keras.Input((8, 8, 1))
    model = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(images)))
    values = {"data": {"normalization": "per-channel"}}
    with pytest.raises(UsageError, match=r"not allowed with model .* put a keras\.layers\.Resc"):
        tffl.simulate(values, model=model)
    tffl.register("my-linear", lambda image_shape, classes: model)
    with pytest.raises(UsageError, match="not allowed with model my-linear, which takes images"):
        check(build({**values, "model": {"name": "my-linear"}}))


def test_tables_are_refused() -> None:
    rows, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    with pytest.raises(UsageError, match="normalization = 'per-channel' needs images"):
        tffl.simulate(
            {"data": {"normalization": "per-channel"}},
            model="mlp",
            dataset=(rows.astype(np.float32), labels, rows.astype(np.float32), labels),
        )

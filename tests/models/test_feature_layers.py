"""Layers whose maps can be shown: which there are, and the last block's output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from keras import layers

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.cam_consensus import CamConsensus
from tffl.explain.maps import Explainer, Probes
from tffl.models import models
from tffl.models.shape import describe_layers, last_block, last_convolution
from tffl_cli.main import cli

SHAPE = (12, 12, 1)


def block(pool: bool = True, prefix: str = "") -> keras.Model:
    """Returns a network of one residual block, after which features may be pooled."""
    images = keras.Input(SHAPE)
    x = layers.Conv2D(3, 3, padding="same", name=f"{prefix}first")(images)
    y = layers.Conv2D(3, 3, padding="same", use_bias=False, name=f"{prefix}conv")(x)
    y = layers.BatchNormalization(name=f"{prefix}norm")(y)
    x = layers.ReLU(name=f"{prefix}out")(layers.Add(name=f"{prefix}add")([x, y]))
    if pool:
        x = layers.Dropout(0.1)(layers.MaxPooling2D(name=f"{prefix}pool")(x))
    return keras.Model(images, x, name=f"{prefix}body")


def classifier(body: keras.Model) -> keras.Model:
    images = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(body(images))
    return keras.Model(images, layers.Dense(2)(x), name="net")


def plain(*middle: layers.Layer) -> keras.Model:
    stem = [keras.Input(SHAPE), layers.Conv2D(3, 3, activation="relu", name="conv"), *middle]
    return keras.Sequential([*stem, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)])


@pytest.mark.parametrize(
    ("make", "last", "end"),
    [
        (lambda: classifier(block()), "body/conv", "body/out"),
        (lambda: classifier(block(pool=False)), "body/conv", "body/out"),
        (lambda: plain(), "conv", "conv"),
        (lambda: plain(layers.BatchNormalization(name="norm")), "conv", "norm"),
        (lambda: plain(layers.Dropout(0.1), layers.ReLU(name="relu")), "conv", "relu"),
        (lambda: models["lenet5"](SHAPE, 2), "conv2", "conv2"),
        (lambda: models["cnn"](SHAPE, 2), "conv2", "conv2"),
        (lambda: models["resnet8"](SHAPE, 2), "stage3_block1_2_conv", "stage3_block1_relu"),
    ],
)
def test_last_block_ends_behind_the_last_convolution_and_before_pooling(
    make: Callable[[], keras.Model], last: str, end: str
) -> None:
    model = make()
    assert (last_convolution(model), last_block(model)) == (last, end)
    described = {layer["layer"]: layer for layer in describe_layers(model)}
    assert described[end]["alias"] == "last-block"
    if end != last:
        assert described[last]["alias"] == "last-convolution"


def test_maps_of_a_block_are_those_of_its_output() -> None:
    model = classifier(block())
    explainer, layout = Explainer(model), WeightLayout.of(model)
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    start = layout.flatten(model.get_weights())
    deltas = np.zeros((1, layout.size), np.float32)
    updates = Updates(1, np.array([0]), np.array([1]), start, deltas, layout)
    maps = explainer.maps(updates, Probes(images, np.array([0, 1, 0])), "layer-cam", "last-block")

    inner = model.get_layer("body")
    features = keras.Model(inner.inputs, inner.get_layer("out").output)
    with tf.GradientTape() as tape:
        values = features([images.astype(np.float32)])
        tape.watch(values)
        pooled = tf.reduce_mean(inner.get_layer("pool")(values), axis=(1, 2))
        logits = model.layers[-1](pooled)
        score = tf.gather(logits, [0, 1, 0], batch_dims=1)
    weights = tf.nn.relu(tape.gradient(score, values))
    expected = tf.nn.relu(tf.reduce_sum(weights * values, axis=-1))
    np.testing.assert_allclose(maps[0], expected, rtol=1e-4, atol=1e-5)


def test_a_layer_is_chosen_by_name_path_or_word() -> None:
    explainer = Explainer(classifier(block()))
    names = {
        **{None: "body/conv", "": "body/conv", "last-convolution": "body/conv"},
        **{"last-block": "body/out", "add": "body/add", "body/norm": "body/norm", "body": "body"},
    }
    assert {name: explainer.layer_name(name) for name in names} == names
    assert explainer.map_size("body/out") == (12, 12) and explainer.map_size("body") == (6, 6)
    with pytest.raises(UsageError, match=r"unknown layer .* 'ad': .*last-block"):
        explainer.layer_name("ad")


def test_detectors_show_the_last_block_and_recorded_runs_the_last_convolution() -> None:
    assert CamConsensus().layer == "last-block"
    assert CamConsensus(layer="last-convolution").layer == CamConsensus(layer="").layer == ""


def test_layers_are_listed(tmp_path: Path) -> None:
    run = CliRunner().invoke
    classifier(block()).save(tmp_path / "my.keras")
    own = run(cli, ["list", "models", str(tmp_path / "my.keras"), "--layers", "--json"])
    assert {entry["layer"]: entry["alias"] for entry in json.loads(own.stdout)}["body/out"]
    result = run(cli, ["list", "models", "lenet5", "--layers", "--dataset", "digits", "--json"])
    sizes = {entry["layer"]: entry["map_size"] for entry in json.loads(result.stdout)}
    assert sizes["conv2"] == [10, 10] and sizes["pool2"] == [5, 5]
    size = ["--image-size", "16", "--channels", "1"]
    shown = run(cli, ["list", "models", "resnet8", "--layers", *size]).stdout
    assert "stage3_block1_relu" in shown and "last-block, the default" in shown and "4 × 4" in shown
    for options, message in (
        (["--layers"], "--layers goes with `tffl list models NAME`"),
        (["lenet5", "--dataset", "digits"], "--dataset belongs to --layers"),
        (["logistic", "--layers"], "has no convolution and thus no maps"),
    ):
        refused = run(cli, ["list", "models", *options])
        assert refused.exit_code == 2 and message in refused.stderr

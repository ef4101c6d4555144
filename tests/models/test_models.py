"""Networks: shapes, weights, names, seeds and refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.models import models

keras = pytest.importorskip("keras")

SHAPES = {
    "cnn": (8, 8, 1),
    "lenet5": (28, 28, 1),
    "resnet18": (8, 8, 3),
    "resnet18-7x7": (32, 32, 3),
    "resnet8": (8, 8, 1),
}
"""Networks that are built quickly; the others are in `test_networks.py`."""


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", SHAPES)
def test_models_map_raw_images_to_logits(name: str) -> None:
    model = models[name](SHAPES[name], 7, seed=1)
    images = np.full((3, *SHAPES[name]), 255.0, dtype=np.float32)
    logits = np.asarray(model(images))
    assert model.name == name
    assert [tensor.name for tensor in model.inputs] == ["images"]
    assert logits.shape == (3, 7)
    assert np.isfinite(logits).all()
    assert not np.allclose(logits.sum(axis=1), 1)
    assert [layer.name for layer in model.layers][1] == "rescale"
    layout = WeightLayout.of(model)
    assert layout.final_layer == "logits"
    assert layout.final_bias == slice(layout.size - 7, layout.size)


def test_cnn_has_the_papers_weights() -> None:
    model = models["cnn"]((32, 32, 3), 10)
    shapes = {v.path: tuple(v.shape) for v in model.weights}
    assert shapes == {
        "conv1/kernel": (3, 3, 3, 32),
        "conv1/bias": (32,),
        "conv2/kernel": (3, 3, 32, 32),
        "conv2/bias": (32,),
        "dense/kernel": (16 * 16 * 32, 128),
        "dense/bias": (128,),
        "logits/kernel": (128, 10),
        "logits/bias": (10,),
    }


@pytest.mark.parametrize("size", [28, 32])
def test_lenet5_has_61706_weights(size: int) -> None:
    model = models["lenet5"]((size, size, 1), 10)
    assert model.count_params() == 61_706
    assert model.get_layer("conv2").output.shape[1:] == (10, 10, 16)


def test_resnet18_has_11_17_million_weights() -> None:
    model = models["resnet18"]((32, 32, 3), 10)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable == 11_173_962
    assert model.count_params() - trainable == 2 * 4800  # moving means and variances
    assert model.get_layer("stage4_block2_relu").output.shape[1:] == (4, 4, 512)
    names = [v.path for v in model.weights]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SHAPES)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    first = models[name](SHAPES[name], 10, seed=5)
    models["cnn"]((8, 8, 1), 3)  # something built in between
    again = models[name](SHAPES[name], 10, seed=5)
    other = models[name](SHAPES[name], 10, seed=6)
    for a, b in zip(first.weights, again.weights, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(a, b)
    changed = [not np.array_equal(a, b) for a, b in zip(first.weights, other.weights, strict=True)]
    kernels = [v.path.endswith("kernel") for v in first.weights]
    assert changed == kernels


def test_layers_of_equal_shape_differ() -> None:
    model = models["resnet18"]((8, 8, 3), 10)
    a, b = (np.asarray(model.get_layer(f"stage1_block{i}_1_conv").kernel) for i in (1, 2))
    assert not np.array_equal(a, b)
    limit = np.sqrt(6 / (3 * 3 * 64))
    assert 0.99 * limit < abs(a).max() <= limit


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.bfloat16
def test_mixed_precision_keeps_float32_weights_and_logits(name: str, policy: Callable) -> None:
    policy("mixed_bfloat16")
    model = models[name](SHAPES[name], 10)
    assert model.layers[2].compute_dtype == "bfloat16"
    assert {v.dtype for v in model.weights} == {"float32"}
    assert model(np.zeros((2, *SHAPES[name]), dtype=np.float32)).dtype == "float32"


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("lenet5", 8, "lenet5 takes images from 12 x 12 to 512 x 512, not 8 x 8"),
        ("resnet18", 4, "resnet18 takes images from 8 x 8"),
        ("cnn", 300, "cnn takes images from 4 x 4 to 256 x 256, not 300 x 300"),
    ],
)
def test_images_of_wrong_sizes_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        models[name]((size, size, 1), 10)


@pytest.mark.parametrize("name", models)
def test_models_have_a_description_and_a_citation(name: str) -> None:
    entry = models.describe(name)
    assert entry["summary"].endswith(".")
    assert entry["reference"]

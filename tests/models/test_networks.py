"""The published networks: sizes, seeds, maps, other image sizes, and agreement with Keras."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tffl.config import TrainingConfig
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.data.federation import ClientData
from tffl.models import models
from tffl.models.blocks import he_uniform
from tffl.models.shape import at_image_size, describe_network, last_convolution, map_size

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

PUBLISHED = {
    "resnet18-7x7": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet-v2": 3_504_872,
    "mobilenet-v3-large": 5_483_032,
    "regnet-y-800mf": 6_432_512,
}
"""Trainable parameters at 1,000 classes."""

LAST = {
    "resnet8": ("stage3_block1_2_conv", 8),
    "resnet18-7x7": ("stage4_block2_2_conv", 1),
    "resnet50": ("conv5_block3_3_conv", 1),
    "mobilenet-v2": ("Conv_1", 1),
    "mobilenet-v3-large": ("conv_1", 1),
    "vgg11": ("stage5_2_conv", 2),
    "regnet-y-800mf": ("stage4_block2_3_conv", 1),
}
"""The last convolution, and the width of its maps at 32 x 32."""


@pytest.fixture(scope="module")
def built() -> Callable[[str], keras.Model]:
    """Returns a network at 32 x 32 x 3 with 1,000 classes and seed 1, built once."""
    cache: dict[str, keras.Model] = {}

    def get(name: str) -> keras.Model:
        if name not in cache:
            cache[name] = models[name]((32, 32, 3), 1000, seed=1)
        return cache[name]

    return get


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def parameters(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_weights_is_as_published(name: str, built: Callable) -> None:
    tolerance = 0.0011 if name == "resnet50" else 0  # Keras' biases before BatchNorm
    assert parameters(built(name)) == pytest.approx(PUBLISHED[name], rel=tolerance)


def test_resnet8_is_small() -> None:
    assert parameters(models["resnet8"]((32, 32, 3), 10)) == 78_042


@pytest.mark.parametrize("name", LAST)
def test_last_convolution_feeds_the_mean(name: str, built: Callable) -> None:
    model, (last, width) = built(name), LAST[name]
    assert last_convolution(model) == last
    assert map_size(model, last) == (width, width)
    assert model.get_layer(last).filters == model.get_layer("mean").output.shape[-1]


@pytest.mark.parametrize("name", LAST)
def test_batchnorm_momentum_and_layer_names_are_fixed(name: str, built: Callable) -> None:
    model = built(name)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms and {layer.momentum for layer in norms} == {0.9}
    assert [layer.name for layer in model.layers][:2] == ["images", "rescale"]
    layout = WeightLayout.of(model)
    assert layout.final_layer == "logits"
    assert len({entry.name for entry in layout.entries}) == len(layout.entries)


@pytest.mark.parametrize("name", LAST)
@pytest.mark.bfloat16
def test_weights_depend_on_the_seed_alone(name: str, built: Callable, bfloat16: None) -> None:
    """They depend neither on global generators, which do not change, nor on the precision."""
    first = built(name)
    keras.utils.set_random_seed(99)
    before = random.getstate()
    again = models[name]((32, 32, 3), 1000, seed=1)
    assert random.getstate() == before
    assert [layer.name for layer in again.layers] == [layer.name for layer in first.layers]
    for a, b in zip(first.weights, again.weights, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(a, b)

    layer = first.get_layer(last_convolution(first))
    own, other = (he_uniform(seed, layer.name)(layer.kernel.shape) for seed in (1, 2))
    np.testing.assert_array_equal(layer.kernel, own)
    assert not np.array_equal(own, other)

    logits = again(np.full((2, 32, 32, 3), 255, np.float32))
    assert again.layers[2].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in again.weights} == {"float32"}
    assert logits.dtype == "float32" and logits.shape == (2, 1000)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", LAST)
def test_copies_for_other_image_sizes_keep_layout_and_weights(name: str, built: Callable) -> None:
    model = built(name)
    larger = at_image_size(model, 64)
    assert larger.input_shape == (None, 64, 64, 3)
    assert WeightLayout.of(larger) == WeightLayout.of(model)
    width = 2 * LAST[name][1]
    assert map_size(larger, last_convolution(larger)) == (width, width)
    np.testing.assert_array_equal(larger.weights[-2], model.weights[-2])
    assert at_image_size(model, 32) is model


@pytest.mark.parametrize("name", ["cnn", "lenet5"])
def test_dense_weights_of_one_image_size_are_refused(name: str) -> None:
    model = models[name]((28, 28, 1), 10)
    with pytest.raises(UsageError, match=f"{name} for 28 x 28 images.* cannot take 32 x 32"):
        at_image_size(model, 32)


def test_a_network_without_convolution_has_no_maps() -> None:
    images = keras.Input((4, 4, 1))
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(images))
    model = keras.Model(images, logits, name="plain")
    with pytest.raises(UsageError, match="plain has no convolution"):
        last_convolution(model)


def test_describe_network_returns_figures_or_a_refusal() -> None:
    assert describe_network("resnet8", (16, 16, 3), 10) == {
        "parameters": 78_042,
        "last_convolution": "stage3_block1_2_conv",
        "map_size": [4, 4],
    }
    refused = describe_network("regnet-y-800mf", (16, 16, 3), 10)
    assert list(refused) == ["refusal"] and "32 x 32" in refused["refusal"]


REFERENCES = {
    "resnet50": (keras.applications.ResNet50, 255.0),
    "mobilenet-v2": (keras.applications.MobileNetV2, None),
    "mobilenet-v3-large": (keras.applications.MobileNetV3Large, 1.0),  # it rescales by itself
}


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_keras_applications_on_gray_images_of_odd_sizes(name: str) -> None:
    """With sizes 40, 20, 10 and 5 the padding depends on the size."""
    build, scale = REFERENCES[name]
    model = at_image_size(models[name]((32, 32, 1), 7, seed=3), 40)
    reference = build(weights=None, input_shape=(40, 40, 1), classes=7, classifier_activation=None)
    shapes = [variable.shape for variable in reference.weights]
    reference.set_weights(
        [np.reshape(w, shape) for w, shape in zip(model.get_weights(), shapes, strict=True)]
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 40, 40, 1)).astype(np.float32)
    scaled = images / 127.5 - 1 if scale is None else images / scale
    expected = np.asarray(reference(scaled))
    assert np.std(expected) > 0
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def test_alpha_narrows_mobilenet_v2_as_keras_does() -> None:
    options = {"weights": None, "input_shape": (32, 32, 3), "classes": 10, "alpha": 0.35}
    narrow = models["mobilenet-v2"]((32, 32, 3), 10, alpha=0.35)
    assert narrow.count_params() == keras.applications.MobileNetV2(**options).count_params()


def test_vgg11_has_the_convolutions_of_configuration_a() -> None:
    model = models["vgg11"]((32, 32, 3), 10)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert [x.filters for x in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    weights = 9 * sum(a * b for a, b in itertools.pairwise([3, *(x.filters for x in convolutions)]))
    assert parameters(model) == weights + 2 * 2752 + 513 * 10  # BatchNorm, dense


@pytest.mark.parametrize("stride", [1, 2])
def test_bundled_convolution_equals_keras_groups(stride: int) -> None:
    from tffl.models.group_convolution import GroupConv2D

    options = {"strides": stride, "padding": "same", "groups": 9, "use_bias": True}
    plain = keras.layers.Conv2D(144, 3, **options)
    bundled = GroupConv2D(144, 3, **options)
    images = tf.random.stateless_normal((2, 5, 5, 144), (1, 2))
    plain.build(images.shape)
    bundled.build(images.shape)
    assert tuple(bundled.kernel.shape) == (3, 3, 16, 144)
    bundled.set_weights(plain.get_weights())

    @tf.function
    def gradients(layer: keras.Layer, x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(loss, [x, layer.kernel.value, layer.bias.value])]

    for a, b in zip(gradients(plain, images), gradients(bundled, images), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * abs(a.numpy()).max())
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(bundled))
    assert type(again) is GroupConv2D and again.groups == 9


COMPILED = {"resnet8", "mobilenet-v3-large", "regnet-y-800mf"}
"""Networks with a layer that `resnet18` does not have; tracing all networks takes long."""


@pytest.fixture
def fast(request: pytest.FixtureRequest) -> Iterator[None]:
    """Disables graph rewriting, which takes longer than two steps, or tracing altogether."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    tf.config.run_functions_eagerly(request.getfixturevalue("name") not in COMPILED)
    yield
    tf.config.run_functions_eagerly(False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.mark.parametrize("name", LAST)
def test_training_function_holds_no_variables(name: str, built: Callable, fast: None) -> None:
    from tffl.engine.training import LocalTraining, Trainer

    model = built(name)
    layout = WeightLayout.of(model)
    start = tf.constant(layout.flatten(model.get_weights()))
    rows = np.arange(4, dtype=np.int32)
    data = ClientData(rows, np.array([3, 1, 4, 1], dtype=np.int32))
    order, seed = np.stack([rows, rows[::-1]]), np.array([1, 2], dtype=np.uint32)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    trainer = Trainer(model, TrainingConfig(batch_size=4, optimizer="sgd"))
    job = LocalTraining(data, order, seed, 0.01)
    update = trainer.train(start, tf.constant(images), job).numpy()
    assert np.isfinite(update).all()
    moved = [np.any(update[layout[entry.name]]) for entry in layout.entries]
    # A bias before BatchNorm has no effect; all else moves.
    assert np.mean(moved) > (0.75 if name == "resnet50" else 0.99)

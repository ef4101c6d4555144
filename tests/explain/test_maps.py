"""Maps against tf-keras-vis, one model at a time."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.explain.maps import PREDICTED, Explainer, Findings, Probes, check_map_size, scaled
from tffl.models import models

SIZES = {"cnn": 12, "lenet5": 28, "resnet8": 32, "resnet18": 16}
PAPERS = {
    "resnet50": "grad-cam",
    "mobilenet-v3-large": "layer-cam",
    "regnet-y-800mf": "grad-cam",
    "resnet18-7x7": "layer-cam",
}
"""One method each, as tracing takes seconds; the small networks are seen with all of them."""


def make_updates(model, n, seed=0, spread=0.02):
    """Updates of n clients whose weights differ visibly; variances stay positive."""
    layout = WeightLayout.of(model)
    rng = np.random.default_rng(seed)
    start = layout.flatten(model.get_weights())
    deltas = rng.normal(0, spread, (n, layout.size)).astype(np.float32)
    deltas[:, ~layout.trainable] = np.abs(deltas[:, ~layout.trainable])
    counts = np.full(n, 10)
    return Updates(1, np.arange(n), counts, start, deltas, layout)


def make_probes(size, channels=3, count=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return Probes(images, np.array([1, 4, PREDICTED], np.int32)[:count])


def reference(model, updates, probes, layer, method):
    """Returns what tf-keras-vis computes, client by client, image by image."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.utils.scores import CategoricalScore

    kind = {"grad-cam": Gradcam, "grad-cam++": GradcamPlusPlus, "layer-cam": Layercam}[method]
    result = []
    for row in range(len(updates)):
        model.set_weights(updates.layout.unflatten(updates.weights(row)))
        images = probes.images.astype(np.float32)
        own = model(images, training=False).numpy().argmax(axis=1)
        classes = np.where(probes.classes == PREDICTED, own, probes.classes)
        result.append(
            kind(model)(
                CategoricalScore(classes.tolist()),
                images,
                penultimate_layer=layer,
                expand_cam=False,
                normalize_cam=False,
            )
        )
    return np.stack([np.asarray(maps) for maps in result])


def assert_equal_maps(actual, expected):
    assert actual.shape == expected.shape
    assert actual.max() > 0
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "layer-cam"])
def test_maps_equal_tf_keras_vis(name, method):
    size = SIZES[name]
    model = models[name]((size, size, 3), 6, seed=1)
    updates, probes, explainer = make_updates(model, 2), make_probes(size), Explainer(model)
    actual = explainer.maps(updates, probes, method)
    expected = reference(model, updates, probes, explainer.layer_name(), method)
    assert_equal_maps(actual, expected)


@pytest.mark.parametrize("name", PAPERS)
def test_maps_of_the_papers_networks_equal_tf_keras_vis(name):
    method, model = PAPERS[name], models[name]((64, 64, 3), 6, seed=1)
    updates, probes = make_updates(model, 2, spread=0.002), make_probes(64)
    explainer = Explainer(model)
    actual = explainer.maps(updates, probes, method)
    expected = reference(model, updates, probes, explainer.layer_name(), method)
    assert_equal_maps(actual, expected)


def test_any_convolution_can_be_chosen():
    model = models["lenet5"]((28, 28, 1), 6, seed=1)
    updates, probes, explainer = make_updates(model, 1), make_probes(28, 1), Explainer(model)
    actual = explainer.maps(updates, probes, "layer-cam", "conv1")
    assert actual.shape == (1, 3, 28, 28)
    assert_equal_maps(actual, reference(model, updates, probes, "conv1", "layer-cam"))


def test_an_unknown_layer_is_refused_with_those_that_exist():
    explainer = Explainer(models["lenet5"]((28, 28, 1), 6, seed=1))
    with pytest.raises(UsageError, match=r"unknown layer with .* of lenet5 'dense1'.*conv2"):
        explainer.layer_name("dense1")


def test_probes_of_another_size_use_the_same_weights():
    model = models["resnet8"]((32, 32, 3), 6, seed=1)
    updates, explainer = make_updates(model, 1), Explainer(model)
    larger = models["resnet8"]((64, 64, 3), 6, seed=2)
    probes = make_probes(64)
    expected = reference(larger, updates, probes, explainer.layer_name(), "layer-cam")
    assert_equal_maps(explainer.maps(updates, probes, "layer-cam"), expected)


def test_a_network_with_a_flat_layer_refuses_probes_of_another_size():
    model = models["cnn"]((12, 12, 1), 6, seed=1)
    updates = make_updates(model, 1)
    with pytest.raises(UsageError, match="cnn"):
        Explainer(model).maps(updates, make_probes(24, 1), "layer-cam")


def test_maps_of_one_pixel_are_refused():
    with pytest.raises(UsageError, match=r"1 x 1 pixels.*probe_size"):
        check_map_size((1, 1), "resnet8's conv")
    check_map_size((1, 2), "resnet8's conv")


def backbone(images, layers):
    """What is nested, or not: its layers are called one after the other."""
    for layer in layers:
        images = layer(images)
    return images


def nested_and_flat(sequential):
    """A network around a backbone, and the same layers without nesting, with the same weights."""

    def features():
        return [
            keras.layers.Conv2D(4, 3, padding="same", name="conv1"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv2"),
        ]

    def head():
        return [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(6, name="logits")]

    inner = keras.Input((12, 12, 3))
    body = keras.Model(inner, backbone(inner, features()), name="body")
    outer = keras.Sequential([keras.Input((12, 12, 3)), body], name="outer")
    scale = keras.layers.Rescaling(1 / 255, name="scale")
    if sequential:
        nested = keras.Sequential([keras.Input((12, 12, 3)), scale, outer, *head()])
    else:
        images = keras.Input((12, 12, 3))
        nested = keras.Model(images, backbone(images, [scale, outer, *head()]))
    images = keras.Input((12, 12, 3))
    whole = [keras.layers.Rescaling(1 / 255), *features(), *head()]
    flat = keras.Model(images, backbone(images, whole))
    flat.set_weights(nested.get_weights())
    return nested, flat


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "layer-cam"])
@pytest.mark.parametrize("sequential", [True, False])
def test_maps_of_a_nested_backbone_equal_those_of_the_flat_network(method, sequential):
    nested, flat = nested_and_flat(sequential)
    inside, outside = Explainer(nested), Explainer(flat)
    assert inside.layer_name() == "outer/body/conv2"
    updates = make_updates(nested, 2, spread=0.1)
    for size in (12, 20):  # another size copies what is nested too
        probes = make_probes(size)
        for layer in (None, "conv1"):
            path = layer and f"outer/body/{layer}"
            assert inside.map_size(path, size) == outside.map_size(layer, size) == (size, size)
            expected = outside.maps(updates, probes, method, layer)
            assert_equal_maps(inside.maps(updates, probes, method, path), expected)
    assert inside.layer_name("conv1") == inside.layer_name("body/conv1") == "outer/body/conv1"
    with pytest.raises(UsageError, match=r"unknown layer with .* of .* 'conv'.*outer/body/conv2"):
        inside.layer_name("conv")


def test_the_gradient_reaches_weights_inside_a_nested_backbone():
    nested, flat = nested_and_flat(sequential=False)
    updates, probes = make_updates(nested, 2, spread=0.1), make_probes(12)
    target = Explainer(flat).maps(updates, probes, "layer-cam")[1]
    start = updates.weights(0)
    value, gradient = Explainer(nested).distance(start, probes, "layer-cam", target)
    wanted, slope = Explainer(flat).distance(start, probes, "layer-cam", target)
    assert value == pytest.approx(wanted, rel=1e-4) and value > 0
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max())


class Block(keras.layers.Layer):
    """A layer that is made of layers."""

    def __init__(self):
        super().__init__(name="block")
        self.conv = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
        self.again = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="again")

    def build(self, shape):
        self.conv.build(shape)
        self.again.build((*shape[:-1], 4))

    def call(self, inputs):
        return self.again(self.conv(inputs))


def test_convolutions_inside_of_a_layer_are_found_too():
    images = keras.Input((8, 8, 3))
    block, pool, dense = Block(), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(6)
    model = keras.Model(images, dense(pool(block(images))))
    explainer = Explainer(model)
    assert explainer.layer_name() == "block/again"
    images = keras.Input((8, 8, 3))
    flat = keras.Model(images, dense(pool(block.again(block.conv(images)))))
    updates, probes = make_updates(model, 2), make_probes(8)
    expected = Explainer(flat).maps(updates, probes, "layer-cam")
    assert_equal_maps(explainer.maps(updates, probes, "layer-cam"), expected)


def test_a_shared_convolution_s_last_output_counts():
    conv = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    images = keras.Input((8, 8, 3))
    once = conv(keras.layers.Rescaling(1 / 255)(images))
    dense = keras.layers.Dense(6)
    model = keras.Model(images, dense(keras.layers.GlobalAveragePooling2D()(conv(once))))
    inner = keras.Input((8, 8, 3))
    other = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="other")
    first = other(keras.layers.Rescaling(1 / 255)(inner))
    flat = keras.Model(inner, dense(keras.layers.GlobalAveragePooling2D()(conv(first))))
    other.set_weights(conv.get_weights())
    updates, probes = make_updates(model, 1, spread=0), make_probes(8)
    expected = Explainer(flat).maps(make_updates(flat, 1, spread=0), probes, "layer-cam")
    assert_equal_maps(Explainer(model).maps(updates, probes, "layer-cam"), expected)


def test_nothing_is_traced_again_for_other_weights_or_other_numbers_of_probes():
    model = models["lenet5"]((28, 28, 1), 6, seed=1)
    explainer = Explainer(model)
    for count in (1, 2, 3):
        explainer.maps(make_updates(model, 2, seed=count), make_probes(28, 1, count), "grad-cam")
    (function,) = explainer._functions.values()
    assert function.experimental_get_tracing_count() == 1


def test_dead_and_non_finite_maps_are_counted():
    maps = np.ones((3, 2, 4, 4), np.float32)
    maps[0, 1] = 0
    maps[1, 0, 2, 2] = np.nan
    maps[1, 1, 0, 0] = np.inf
    findings = Findings.of(maps)
    assert findings.dead.tolist() == [1, 0, 0]
    assert findings.non_finite.tolist() == [0, 2, 0]


def test_weights_that_are_not_finite_make_maps_that_are_not_finite():
    model = models["lenet5"]((28, 28, 1), 6, seed=1)
    updates = make_updates(model, 2)
    updates.matrix[0, updates.layout["logits/bias"]] = np.nan
    updates.matrix[1] = 1e30
    maps = Explainer(model).maps(updates, make_probes(28, 1), "grad-cam++")
    assert Findings.of(maps).non_finite.tolist() == [3, 3]


@given(st.integers(0, 99), st.floats(0.01, 1e6))
def test_scaled_maps_run_from_zero_to_one_whatever_their_brightness(seed, brightness):
    maps = np.random.default_rng(seed).random((2, 3, 4, 4), dtype=np.float32) + 0.1
    maps[0, 0] = 0
    result = np.asarray(scaled(maps * np.float32(brightness)))
    assert result.min() == 0
    assert (result[0, 0] == 0).all()
    np.testing.assert_allclose(result.max(axis=(2, 3)).ravel()[1:], 1, rtol=1e-4)


def test_the_gradient_of_the_distance_equals_finite_differences():
    model = models["lenet5"]((16, 16, 1), 6, seed=1)
    updates, probes, explainer = make_updates(model, 2), make_probes(16, 1, 2), Explainer(model)
    target = explainer.maps(updates, probes, "layer-cam")[1]
    weights = updates.weights(0)
    value, gradient = explainer.distance(weights, probes, "layer-cam", target)
    own = explainer.maps(updates.select(np.array([True, False])), probes, "layer-cam")[0]
    np.testing.assert_allclose(value, np.square(own - target).sum(), rtol=1e-4)
    direction = gradient / np.linalg.norm(gradient)
    step = 1e-3 * direction.astype(np.float32)
    ahead, behind = (
        explainer.distance(weights + sign * step, probes, "layer-cam", target)[0]
        for sign in (1, -1)
    )
    slope = (ahead - behind) / (2 * np.linalg.norm(step))
    np.testing.assert_allclose(slope, np.linalg.norm(gradient), rtol=0.05)

"""Global models that images say nothing about are found out before anyone is judged with them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest

from tffl.config import DataConfig
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.pixels import RANGES, in_range
from tffl.core.updates import Updates
from tffl.data.build import load_dataset
from tffl.data.samples import Samples
from tffl.explain.maps import Explainer
from tffl.explain.suitability import check_model, predictor
from tffl.models.head import as_logits

BYTES, UNIT, SIGNED = RANGES


@cache
def samples() -> Samples:
    found = load_dataset(DataConfig(dataset="digits", image_size=8))
    return Samples(found.test_images, found.test_labels, found.classes)


def nearest_mean(pixels: tuple[float, float], inside: bool = False, end: str = "linear"):
    """A classifier that needs no training: the logit of a class is −2 ‖x − its mean‖²."""
    data = load_dataset(DataConfig(dataset="digits", image_size=8))
    images = in_range(data.train_images.astype(np.float32), pixels)
    means = np.stack([images[data.train_labels == c].mean(0).ravel() for c in range(10)])
    scale = 2 * (255 / (pixels[1] - pixels[0])) ** 2 / 255**2
    inputs = keras.Input((8, 8, 1))
    low, high = pixels
    x = keras.layers.Rescaling((high - low) / 255, low)(inputs) if inside else inputs
    convolution = keras.layers.Conv2D(1, 1, kernel_initializer="ones")
    dense = keras.layers.Dense(10, activation=end)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(convolution(x))))
    dense.set_weights([2 * scale * means.T, -scale * (means**2).sum(1)])
    return model


def check(model: keras.Model, pixels=BYTES, images: Samples | None = None) -> str:
    return check_model(predictor(model), images or samples(), pixels, seed=1)


@pytest.mark.parametrize("pixels", RANGES)
def test_models_of_any_range_suit_where_it_is_given_or_built_in(pixels):
    assert check(nearest_mean(pixels), pixels) == ""
    assert check(nearest_mean(pixels, inside=True)) == ""


@pytest.mark.parametrize("pixels", [UNIT, SIGNED])
def test_a_model_whose_images_are_scaled_outside_of_it(pixels):
    with pytest.raises(UsageError, match=rf"as pixels \({pixels[0]:g},{pixels[1]:g}\)"):
        check(nearest_mean(pixels))


@pytest.mark.parametrize("pixels", [*RANGES[1:], (-2.0, 3.0)])
def test_float_images_are_tried_in_the_range_they_are_in(pixels):
    floats = in_range(samples().images.astype(np.float32), pixels)
    assert check(nearest_mean(pixels), pixels, replace(samples(), images=floats)) == ""
    with pytest.raises(UsageError, match=r"seems to take pixels of 0…255, .* scale float images"):
        check(nearest_mean(BYTES), pixels, replace(samples(), images=floats))


def test_models_of_noise_are_no_fault_and_a_warning():
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        model = nearest_mean(BYTES, inside=True)
        kernel = model.layers[-1].kernel
        kernel.assign(np.random.default_rng(seed).normal(size=kernel.shape) / 1000)
        model.layers[-1].bias.assign(10.0 * (np.arange(10) == 3))  # all of one class
        assert "no more than chance" in check(model)


def test_classes_in_another_order():
    order = np.roll(np.arange(10), 3)
    moved = replace(samples(), labels=order[samples().labels].astype(np.int32))
    with pytest.raises(UsageError, match="another order than the dataset"):
        check(nearest_mean(BYTES), images=moved)


def test_a_model_that_ends_in_softmax_is_tried_without_it():
    logits = as_logits(nearest_mean(BYTES, end="softmax"))
    assert check(logits) == ""


def test_no_images_say_nothing():
    nothing = replace(samples(), images=samples().images[:0], labels=samples().labels[:0])
    assert check(nearest_mean(UNIT), images=nothing) == ""


def test_maps_and_logits_are_of_images_in_the_models_range():
    from tffl.explain.probes import draw

    inside, outside = nearest_mean(SIGNED, inside=True), nearest_mean(SIGNED)
    layout = WeightLayout.of(outside)
    start = layout.flatten(outside.get_weights())
    zeros = np.zeros((1, layout.size), np.float32)
    updates = Updates(1, np.arange(1), np.ones(1, np.int64), start, zeros, layout)
    probes = draw(samples(), 4, seed=1)
    one, two = Explainer(inside), Explainer(outside, SIGNED)
    np.testing.assert_allclose(
        one.logits(updates, probes), two.logits(updates, probes), rtol=1e-4, atol=1e-3
    )
    maps = [explainer.maps(updates, probes, "layer-cam") for explainer in (one, two)]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-5)
    floats = replace(probes, images=in_range(probes.images.astype(np.float32), SIGNED))
    maps = [two.maps(updates, images, "layer-cam") for images in (probes, floats)]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-5)
    logits = [two.logits(updates, images) for images in (probes, floats)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-3)

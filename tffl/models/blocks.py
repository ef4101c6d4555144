"""Building blocks of the networks: seeded weights, normalized convolutions, size checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tffl.core import seeds
from tffl.core.errors import require

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

Function = TypeVar("Function", bound=Callable)

MOMENTUM = 0.9
"""Momentum of the moving BatchNorm statistics: new = 0.9 · old + 0.1 · batch.

Keras' default of 0.99 and MobileNet's 0.999 would keep the statistics of the first, random weights
for hundreds of steps, longer than many federated runs last.
"""

EPSILON = 1e-5
"""Term that BatchNorm adds to the variance."""


def cited(reference: str) -> Callable[[Function], Function]:
    """Returns a decorator that attaches a model's citation, which `tffl list models` prints."""

    def attach(function: Function) -> Function:
        setattr(function, "reference", reference)  # noqa: B010 (mypy knows no such attribute)
        return function

    return attach


def he_uniform(seed: int, layer: str, fan_in: int | None = None) -> keras.initializers.Initializer:
    """Returns the He-uniform initializer of one layer, U(±√(6 / fan_in)).

    It depends on the seed and the layer's name only, not on what was built before.

    Args:
      seed: Seed of the experiment's model.
      layer: Name of the layer.
      fan_in: Number of inputs per output; by default, Keras derives it from the kernel's shape.
        Depthwise convolutions need it, because Keras counts the inputs of all channels for them.
    """
    import keras

    layer_seed = seeds.integer(seed, f"weights of {layer}")
    if fan_in is None:
        return keras.initializers.HeUniform(seed=layer_seed)
    limit = math.sqrt(6 / fan_in)
    return keras.initializers.RandomUniform(-limit, limit, seed=layer_seed)


def convolve(
    x: KerasTensor, filters: int, size: int, stride: int, name: str, seed: int
) -> KerasTensor:
    """Applies a convolution `{name}_conv` without bias, and a BatchNorm `{name}_bn`."""
    from keras import layers

    x = layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=he_uniform(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    return normalize(x, f"{name}_bn")


def normalize(x: KerasTensor, name: str) -> KerasTensor:
    """Applies a BatchNorm with momentum 0.9 and epsilon 1e-5."""
    from keras import layers

    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)


def dense(x: KerasTensor, units: int, activation: str | None, name: str, seed: int) -> KerasTensor:
    """Applies a dense layer with bias."""
    from keras import layers

    weights = he_uniform(seed, name)
    return layers.Dense(units, activation=activation, kernel_initializer=weights, name=name)(x)


def logits(x: KerasTensor, classes: int, seed: int) -> KerasTensor:
    """Applies the last dense layer, in float32 whatever the precision of the other layers."""
    from keras import layers

    weights = he_uniform(seed, "logits")
    return layers.Dense(classes, kernel_initializer=weights, dtype="float32", name="logits")(x)


def check_size(model: str, image_shape: tuple[int, ...], smallest: int, largest: int = 512) -> None:
    """Raises `UsageError` unless there are images, of `smallest <= height, width <= largest`."""
    require(
        len(image_shape) == 3,
        f"{model} takes images, not vectors of {image_shape[0]} features: set model.name to mlp or "
        "logistic",
    )
    height, width, _ = image_shape
    require(
        smallest <= min(height, width) and max(height, width) <= largest,
        f"{model} takes images from {smallest} x {smallest} to {largest} x {largest}, "
        f"not {height} x {width}: set data.image_size",
    )

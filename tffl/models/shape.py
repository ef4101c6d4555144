"""What a network makes of an image: its convolutions, their maps' size, other image sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.models import models

if TYPE_CHECKING:
    import keras


def last_convolution(model: keras.Model) -> keras.layers.Layer:
    """Returns the last convolution of a network, plain, grouped, depthwise or separable.

    Raises:
      UsageError: The network has none.
    """
    found = convolutions(model)
    require(bool(found), f"{model.name} has no convolution, so it has no maps: take another model")
    return found[-1]


def convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns all convolutions of a network in their order, plain, grouped, or any other kind."""
    from keras import layers

    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def map_size(model: keras.Model, layer: keras.layers.Layer) -> tuple[int, int]:
    """Returns height and width of the maps that a layer of a model puts out.

    Raises:
      UsageError: The layer's output is not `[batch, height, width, channels]`.
    """
    shape = layer.output.shape
    require(
        len(shape) == 4,
        f"layer {layer.name} of {model.name} has no maps: its output is {list(shape[1:])}",
    )
    return int(shape[1]), int(shape[2])


def at_image_size(model: keras.Model, size: int) -> keras.Model:
    """Returns a network for images of `size × size`, with the weights and layout of `model`.

    Layers keep their names and options; `model` itself is returned if that is its size already.

    Raises:
      UsageError: The network has weights whose number depends on the image size, or too many
        layers for such small images.
    """
    import keras

    height, width, channels = model.input_shape[1:]
    if (height, width) == (size, size):
        return model
    name = model.name
    images = keras.Input((size, size, channels), name=model.inputs[0].name)
    try:
        inputs = keras.tree.map_structure(lambda _: images, model.input)  # alone or in a list
        other = keras.models.clone_model(model, input_tensors=inputs)
    except ValueError as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"{name} takes no images of {size} x {size}: {reason}") from error
    require(
        WeightLayout.of(other) == WeightLayout.of(model),
        f"{name} for {height} x {width} images has dense weights for that size only, and takes "
        f"none of {size} x {size}: leave the probes at {height} x {width}, or take a network "
        "that averages over pixels, such as resnet8",
    )
    other.set_weights(model.get_weights())
    return other


def figures(name: str, image_shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """Builds a model, and returns what `tffl list models --image-size` shows of it.

    Args:
      name: Public name of the model.
      image_shape: Height, width, channels.
      classes: Number of logits.

    Returns:
      `parameters` (trainable), `last_convolution`, `map_size` (height, width); or only `refusal`,
      why the model takes no such images or has no maps.
    """
    try:
        model = models[name](image_shape, classes)
        layer = last_convolution(model)
        height, width = map_size(model, layer)
    except UsageError as error:
        return {"refusal": str(error)}
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return {
        "parameters": parameters,
        "last_convolution": layer.name,
        "map_size": [height, width],
    }

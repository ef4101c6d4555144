"""The last convolution of a network, the size of its maps, and copies for other image sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import TfflError, UsageError, require
from tffl.core.process import silence
from tffl.models.build import build_network
from tffl.models.layers import convolutions, feature_layers, output_shape, resized, set_weights

if TYPE_CHECKING:
    import keras


LAST_CONVOLUTION, LAST_BLOCK = "last-convolution", "last-block"
"""Stand for a layer of any network: its last convolution, and that or what follows it up to the end
of its block, such as BatchNorm, the sum with a shortcut, and ReLU."""


def last_convolution(model: keras.Model) -> str:
    """Returns the path of the last convolution of a network, which may be in a nested model.

    Raises:
      UsageError: The network has no convolution.
    """
    found = list(convolutions(model))
    require(bool(found), f"{model.name} has no convolution and thus no maps: choose another model")
    return found[-1]


def last_block(model: keras.Model) -> str:
    """Returns the path of the layer whose output is that of the network's last block.

    It is the last convolution, or the last BatchNorm, sum or activation behind it, as far as the
    layers are part of the network's graph.

    Raises:
      UsageError: The network has no convolution.
    """
    from keras import layers

    after = (
        *(layers.BatchNormalization, layers.GroupNormalization, layers.LayerNormalization),
        *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU),
        *(layers.Add, layers.Average, layers.Concatenate, layers.Maximum, layers.Multiply),
    )
    found, paths = feature_layers(model), list(feature_layers(model))
    last = last_convolution(model)
    behind = paths[paths.index(last) :]
    return [path for path in behind if path == last or isinstance(found[path], after)][-1]


def map_size(model: keras.Model, path: str) -> tuple[int, int]:
    """Returns height and width of the feature maps of a layer, named by its path."""
    height, width, _ = output_shape(model, feature_layers(model)[path])
    return height, width


def describe_layers(model: keras.Model) -> list[dict[str, Any]]:
    """Returns what `tffl list models --layers` shows of each layer with feature maps.

    Its path is `layer`, its class `kind`; `map_size` is height and width, and `alias` the word that
    stands for it, if there is one.

    Raises:
      UsageError: The network has no convolution.
    """
    aliases = {last_convolution(model): LAST_CONVOLUTION, last_block(model): LAST_BLOCK}
    return [
        {
            "layer": path,
            "kind": type(layer).__name__,
            "map_size": list(map_size(model, path)),
            "alias": aliases.get(path, ""),
        }
        for path, layer in feature_layers(model).items()
    ]


def at_image_size(model: keras.Model, size: int) -> keras.Model:
    """Returns a network for images of `size × size`, with the weights and layout of `model`.

    Layers keep their names and options. If `model` already has that size, it is returned.

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
        other = resized(model, images)
    except ValueError as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"{name} takes no images of {size} x {size}: {reason}") from error
    require(
        _weight_shapes(other) == _weight_shapes(model),
        f"{name} for {height} x {width} images has dense weights for that size only, and cannot "
        f"take {size} x {size}: leave the probes at {height} x {width}, or choose a network "
        "that averages over pixels, such as resnet8",
    )
    set_weights(other, model.get_weights())
    return other


def _weight_shapes(model: keras.Model) -> list[Any]:
    """Returns the shapes of a network's weights, by position, and the paths of convolutions."""
    shapes = [(tuple(variable.shape), variable.trainable) for variable in model.weights]
    return [shapes, list(convolutions(model))]


def describe_networks(
    entries: Iterable[Mapping[str, Any]], image_shape: tuple[int, int, int], classes: int
) -> list[dict[str, Any]]:
    """Adds to descriptions of models, as the registry has them, what `describe_network` returns."""
    silence()
    return [{**entry, **describe_network(entry["name"], image_shape, classes)} for entry in entries]


def describe_network(name: str, image_shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """Builds a model, and returns what `tffl list models --image-size` shows of it.

    Args:
      name: The name in `tffl list models`.
      image_shape: Height, width, channels.
      classes: Number of logits.

    Returns:
      `parameters` (trainable), `last_convolution`, `map_size` (height, width); or only `refusal`,
      the reason why the model does not take such images or has no maps.
    """
    try:
        model = build_network(name, image_shape, classes)
        layer = last_convolution(model)
        height, width = map_size(model, layer)
    except TfflError as error:
        return {"refusal": str(error)}
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return {
        "parameters": parameters,
        "last_convolution": layer,
        "map_size": [height, width],
    }

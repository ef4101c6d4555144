"""Nested layers: their paths and outputs, and copies of the networks that contain them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def convolutions(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns path → 2D convolution, of any kind, in the network's order.

    A path joins the names of the enclosing models and layers and the layer's own, such as
    `"backbone/conv1"`.
    """
    from keras import layers

    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    return {path: layer for path, layer in _named_layers(model) if isinstance(layer, kinds)}


def feature_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns path → layer of all that compute feature maps, in the network's order.

    They are 2D convolutions, and all other layers of the network's graph whose output is
    `[batch, height, width, channels]`, such as activations and nested models.
    """
    found = convolutions(model)
    return {
        path: layer
        for path, layer in _named_layers(model)
        if path in found or (_computes_features(layer) and not _is_input(layer))
    }


def _computes_features(layer: Any) -> bool:
    nodes = getattr(layer, "_inbound_nodes", ())
    outputs: Any = nodes[-1].output_tensors if nodes else ()
    return len(outputs) == 1 and len(outputs[0].shape) == 4


def _is_input(layer: Any) -> bool:
    from keras import layers

    return isinstance(layer, layers.InputLayer)


def _named_layers(outer: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields path and layer of all nested layers, each followed by the layers in it."""
    names: dict[str, int] = {}
    for layer in outer.layers if hasattr(outer, "layers") else outer._layers:
        number = names[layer.name] = names.get(layer.name, 0) + 1
        path = f"{prefix}{layer.name}" + (f" ({number})" if number > 1 else "")
        yield path, layer
        yield from _named_layers(layer, f"{path}/")


@contextmanager
def outputs_of(layer: keras.layers.Layer) -> Iterator[list[Any]]:
    """Collects the outputs of a layer while a model that contains it is called.

    The output of a layer in a nested model is not a tensor of the outer model's graph, so that
    `keras.Model(inputs, layer.output)` cannot reach it.
    """
    call, outputs = layer.call, []

    def recording(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        outputs.append(result)
        return result

    object.__setattr__(layer, "call", recording)  # Keras would track a plain attribute
    try:
        yield outputs
    finally:
        object.__delattr__(layer, "call")


def output_shape(model: keras.Model, layer: keras.layers.Layer) -> tuple[int, ...]:
    """Returns the shape of a layer's last output for one image, without the batch axis."""
    import keras

    with outputs_of(layer) as outputs, keras.StatelessScope():
        model(np.zeros((1, *model.input_shape[1:]), np.float32), training=False)
    return tuple(outputs[-1].shape[1:])


def set_weights(model: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """Sets the weights of a network, and updates what layers such as Normalization derive."""
    model.set_weights(list(weights))
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def resized(model: keras.Model, images: Any) -> keras.Model:
    """Returns a copy of a network, including nested models, for images of another size.

    Args:
      model: A Functional or Sequential model. The copy is Functional and newly initialized.
      images: A `keras.Input`.

    Raises:
      ValueError: A layer does not take such inputs.
    """
    import keras

    copies: dict[int, Any] = {}

    def copy(layer: Any) -> Any:
        # The copy of a nested model needs its inputs, so it is made in `call`.
        return layer if _is_network(layer) else type(layer).from_config(layer.get_config())

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_network(layer):
            if id(layer) not in copies:
                (tensor,) = keras.tree.flatten(args)
                copies[id(layer)] = resized(layer, keras.Input(tensor.shape[1:]))
            layer = copies[id(layer)]
        return layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        outputs = reduce(lambda tensor, layer: call(copy(layer), tensor), model.layers, images)
        return keras.Model(images, outputs, name=model.name)
    inputs = keras.tree.map_structure(lambda _: images, model.input)  # a tensor or a list of one
    return keras.models.clone_model(
        model, input_tensors=inputs, clone_function=copy, call_function=call
    )


def _is_network(layer: Any) -> bool:
    """Returns whether a layer is a Functional or Sequential model."""
    import keras

    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")

"""How a model ends: in logits, which everything here expects, or in an activation beyond them.

Cross-entropy takes logits. Of a model that ends in softmax it would take probabilities for logits:
no error, but a model that hardly learns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError
from tffl.models.layers import set_weights

if TYPE_CHECKING:
    import keras

BOUNDED = frozenset(
    {"softmax", "sparsemax", "sigmoid", "hardsigmoid", "sparsesigmoid"}
    | {"tanh", "hardtanh", "softsign"}
)
"""Activations whose values are no logits, without underscores. Log-softmax gives the same loss."""

PASSING = frozenset({"identity", "dropout", "reshape", "flatten", "squeeze", "cast", "activation"})
"""Layers and operations that hand on what they get; an activation that bounds is found before."""

IMAGES, SIDE = 8, 32
"""How many images show that outputs are probabilities, and how large where a model takes any."""


def final_activation(model: keras.Model) -> str:
    """Returns what a model ends in, such as `"softmax"`; nothing if it ends in logits.

    What no layer says, the outputs for some images do: positive numbers that sum to 1.

    Args:
      model: From images `[batch, height, width, channels]` to `[batch, outputs]`.
    """
    return _bound(_end(model)) or ("softmax" if _gives_probabilities(model) else "")


def as_logits(model: keras.Model) -> keras.Model:
    """Returns a model without the activation at its end: of the same weights, in the same order.

    Args:
      model: As for `final_activation`. It is not changed; if it ends in logits, it is returned.

    Raises:
      UsageError: The activation is part of something else, or the model cannot be copied.
    """
    import keras

    found, end = final_activation(model), _end(model)
    if not found:
        return model
    advice = f"{model.name} ends in {found}: give it without, its weights are the same"
    if not (_bound(end) and isinstance(end, keras.Layer)):
        raise UsageError(advice)

    class Through(keras.Layer):
        """Takes the place of an activation, and the mask that softmax is called with."""

        def call(self, values: keras.KerasTensor, mask: Any = None) -> keras.KerasTensor:
            return values

    def copy(layer: keras.Layer) -> keras.Layer:
        if layer is not end:
            return type(layer).from_config(layer.get_config())
        if _has_activation(layer):
            return type(layer).from_config({**layer.get_config(), "activation": "linear"})
        return Through(name=layer.name)

    try:
        logits = keras.models.clone_model(model, clone_function=copy, recursive=True)
        set_weights(logits, model.get_weights())
    except Exception as error:  # of layers that others have written
        raise UsageError(advice) from error
    return logits


def _end(model: keras.Model) -> Any:
    """Returns the operation that makes the outputs, inside of nested models, before reshaping."""
    tensor = model.outputs[0]
    while True:
        history = tensor._keras_history
        operation = history.operation
        if inner := getattr(operation, "outputs", None):
            tensor = inner[history.tensor_index]
            continue
        inputs = operation._inbound_nodes[history.node_index].input_tensors
        if _bound(operation) or _kind(operation) not in PASSING or len(inputs) != 1:
            return operation
        tensor = inputs[0]


def _bound(operation: Any) -> str:
    """Returns the activation that an operation applies or is, if it bounds what it gives."""
    chosen = getattr(operation, "activation", None)
    names = [_kind(operation), getattr(chosen, "__name__", type(chosen).__name__)]
    return next((name for name in names if name.replace("_", "").lower() in BOUNDED), "")


def _kind(operation: Any) -> str:
    return type(operation).__name__.lower()


def _has_activation(layer: keras.Layer) -> bool:
    return "activation" in layer.get_config()


def _gives_probabilities(model: keras.Model) -> bool:
    height, width, channels = model.inputs[0].shape[1:]
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (IMAGES, height or SIDE, width or SIDE, channels))
    outputs = np.asarray(model(images.astype(np.float32), training=False), np.float64)
    sums = outputs.sum(axis=1)
    return outputs.shape[1] > 1 and bool((outputs >= 0).all() and np.allclose(sums, 1, atol=1e-3))

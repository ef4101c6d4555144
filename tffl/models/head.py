"""Finds and removes the activation that a model applies to its logits.

The loss takes logits. If a model ended in softmax, the loss would treat probabilities as logits: no
error would occur, but the model would hardly learn.
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
"""Activations with bounded values, spelled without underscores.

Log-softmax is not among them: it leaves the loss unchanged.
"""

PASS_THROUGH = frozenset(
    {"identity", "dropout", "reshape", "flatten", "squeeze", "cast", "activation"}
)
"""Layers and operations that may follow the final activation without changing its values."""

TRIAL_IMAGES, TRIAL_SIZE = 8, 32
"""Number of images that are tried on a model, and their size if the model takes any size."""


def final_activation(model: keras.Model) -> str:
    """Returns the activation that a model ends in, such as `"softmax"`; empty if it ends in logits.

    If no layer names one, the model is tried on random images: outputs that are not negative and
    sum to 1 are a softmax.

    Args:
      model: A model from images `[batch, height, width, channels]`, or vectors `[batch, features]`,
        to `[batch, outputs]`.
    """
    return _bounded_activation(_final_operation(model)) or (
        "softmax" if _gives_probabilities(model) else ""
    )


def as_logits(model: keras.Model) -> keras.Model:
    """Returns a copy of a model without its final activation, with the same weights in order.

    Args:
      model: As for `final_activation`. It is not changed; if it ends in logits, it is returned.

    Raises:
      UsageError: The activation is not a layer or part of one, or the model cannot be copied.
    """
    import keras

    found, end = final_activation(model), _final_operation(model)
    if not found:
        return model
    advice = f"{model.name} ends in {found}: pass it without {found}, with the same weights"
    if not (_bounded_activation(end) and isinstance(end, keras.Layer)):
        raise UsageError(advice)

    def copy(layer: keras.Layer) -> keras.Layer:
        if layer is not end:
            return type(layer).from_config(layer.get_config())
        if _has_activation(layer):
            return type(layer).from_config({**layer.get_config(), "activation": "linear"})
        # Of Keras itself, so that a saved model is loaded where tffl is not installed.
        return keras.layers.Activation("linear", name=layer.name)

    def call(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        if layer.name == end.name and isinstance(layer, keras.layers.Activation):
            options.pop("mask", None)  # Softmax takes one
        return layer(*inputs, **options)

    functional = None if isinstance(model, keras.Sequential) else call
    try:
        logits = keras.models.clone_model(
            model, clone_function=copy, call_function=functional, recursive=True
        )
        set_weights(logits, model.get_weights())
    except Exception as error:  # layers of plug-ins may raise anything
        raise UsageError(advice) from error
    return logits


def _final_operation(model: keras.Model) -> Any:
    """Returns the operation that computes the outputs, also in nested models, before reshaping."""
    tensor = model.outputs[0]
    while True:
        history = tensor._keras_history
        operation = history.operation
        if inner := getattr(operation, "outputs", None):
            tensor = inner[history.tensor_index]
            continue
        inputs = operation._inbound_nodes[history.node_index].input_tensors
        if (
            _bounded_activation(operation)
            or _kind(operation) not in PASS_THROUGH
            or len(inputs) != 1
        ):
            return operation
        tensor = inputs[0]


def _bounded_activation(operation: Any) -> str:
    """Returns the name of the bounded activation that an operation is or applies, or nothing."""
    chosen = getattr(operation, "activation", None)
    names = [_kind(operation), getattr(chosen, "__name__", type(chosen).__name__)]
    return next((name for name in names if name.replace("_", "").lower() in BOUNDED), "")


def _kind(operation: Any) -> str:
    return type(operation).__name__.lower()


def _has_activation(layer: keras.Layer) -> bool:
    return "activation" in layer.get_config()


def _gives_probabilities(model: keras.Model) -> bool:
    shape = [side or TRIAL_SIZE for side in model.inputs[0].shape[1:]]
    images = np.random.default_rng(0).integers(0, 256, (TRIAL_IMAGES, *shape))
    outputs = np.asarray(model(images.astype(np.float32), training=False), np.float64)
    sums = outputs.sum(axis=1)
    return outputs.shape[1] > 1 and bool((outputs >= 0).all() and np.allclose(sums, 1, atol=1e-3))

"""The supervised contrastive loss on what the final layer of a network receives.

    f_i = h(x_i)/‖h(x_i)‖,   p_ij = exp(f_i·f_j/τ) / Σ_{k≠i} exp(f_i·f_k/τ)
    loss = −mean_i s_i · mean_{j≠i, y_j=y_i} log p_ij,   s_i = s if y_i is the target, else 1

Supervised Contrastive Learning
    Prannay Khosla et al. NeurIPS 2020. (With s = 1.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Contrast:
    """A contrastive loss.

    Attributes:
      target: The class whose images count s times as anchors.
      scale: s.
      temperature: τ.
    """

    target: int
    scale: float
    temperature: float

    def loss(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the loss of a batch, a float32 scalar.

        An image that is the only one of its class adds 0.

        Args:
          features: `[batch, …]`, which are flattened.
          labels: int32 `[batch]`.
        """
        count = tf.shape(labels)[0]
        flat = tf.reshape(tf.cast(features, tf.float32), [count, -1])
        unit = tf.math.l2_normalize(flat, axis=1)
        logits = tf.matmul(unit, unit, transpose_b=True) / self.temperature
        others = 1 - tf.eye(count)
        log_p = logits - tf.reduce_logsumexp(
            tf.where(others > 0, logits, -1e9), axis=1, keepdims=True
        )
        same = tf.cast(labels[:, None] == labels[None, :], tf.float32) * others
        mean = tf.math.divide_no_nan(
            tf.reduce_sum(same * log_p, axis=1), tf.reduce_sum(same, axis=1)
        )
        return -tf.reduce_mean(tf.where(labels == self.target, self.scale, 1.0) * mean)


def final_layer(model: keras.Model) -> keras.Layer:
    """Returns the layer that owns a model's last trainable variable and computes the logits."""
    last = model.trainable_variables[-1]
    owners = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if any(variable is last for variable in layer.trainable_variables)
    ]
    return min(owners, key=lambda layer: len(layer.trainable_variables))


@contextmanager
def inputs_of(layer: keras.Layer) -> Iterator[list[Any]]:
    """Collects what a layer receives while a model that contains it is called."""
    call, inputs = layer.call, []

    def recording(*args: Any, **kwargs: Any) -> Any:
        inputs.append(args[0])
        return call(*args, **kwargs)

    object.__setattr__(layer, "call", recording)  # Keras would track a plain attribute
    try:
        yield inputs
    finally:
        object.__delattr__(layer, "call")

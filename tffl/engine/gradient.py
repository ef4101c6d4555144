"""The gradient of a model's loss at any weights, on any labeled images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tffl.core.layout import FlatVariables, WeightLayout

CHUNK = 256
"""Number of images in one compiled pass."""


class Gradient:
    """Computes loss and gradient of one model; compiled once.

    BatchNorm uses its moving statistics, as in evaluation; their columns have gradient 0.

    Args:
      model: A built Keras model that ends in logits.
    """

    def __init__(self, model: keras.Model, dtype: str = "uint8") -> None:
        self._size = WeightLayout.of(model).size
        self._function = _make_gradient(model, self._size, dtype)

    def __call__(
        self, weights: np.ndarray, images: np.ndarray, labels: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Returns the mean cross-entropy and its gradient, float32 `[d]`.

        Args:
          weights: float32 `[d]`.
          images: `[m, …]`, `m >= 1`, uint8 or float32 as the gradient was made for.
          labels: int32 `[m]`.
        """
        total, loss = np.zeros(self._size), 0.0
        flat = tf.constant(weights, tf.float32)
        for begin in range(0, len(labels), CHUNK):
            part = slice(begin, begin + CHUNK)
            chunk = tf.constant(images[part]), tf.constant(labels[part], tf.int32)
            chunk_loss, chunk_gradient = self._function(flat, *chunk)
            loss += float(chunk_loss)
            total += chunk_gradient.numpy()
        return loss / len(labels), (total / len(labels)).astype(np.float32)


def _make_gradient(model: keras.Model, size: int, dtype: str) -> Any:
    variables = FlatVariables(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec([size], tf.float32),
            tf.TensorSpec([None, *model.input_shape[1:]], dtype),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def gradient(
        flat: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        trainable, frozen = variables.split(flat)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            inputs = tf.cast(images, tf.float32)
            logits, _ = variables.call(trainable, frozen, inputs, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, tf.cast(logits, tf.float32)
            )
            loss = tf.reduce_sum(losses)
        gradients = tape.gradient(loss, trainable)
        return loss, variables.join(gradients, [tf.zeros_like(tensor) for tensor in frozen])

    return gradient

"""Gradient descent on the pixels of a trigger, against several models at once; compiled once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tffl.core.layout import FlatVariables, WeightLayout
from tffl.core.pixels import BYTES, PixelRange, in_range


class TriggerSearch:
    """Finds a trigger that turns images into a class: signed gradient steps, batch by batch.

    BatchNorm uses its moving statistics, as in evaluation.

    Args:
      model: A built Keras model that ends in logits.
      dtype: Of the images, uint8 or float32.
      pixels: What the model takes for the darkest pixel and the brightest.
      batch_size: Number of images in a step.
    """

    def __init__(
        self,
        model: keras.Model,
        dtype: str = "uint8",
        pixels: PixelRange = BYTES,
        batch_size: int = 32,
    ) -> None:
        self._function = _make_search(model, dtype, pixels, batch_size)

    def descend(
        self,
        weights: np.ndarray,
        shares: np.ndarray,
        images: np.ndarray,
        trigger: np.ndarray,
        mask: np.ndarray,
        target: int,
        step: float,
    ) -> np.ndarray:
        """Passes over the images once, and returns the trigger as it is then.

            every batch:  trigger ← clip(trigger − step·sign ∇ Σ_k shares_k · L(weights_k))

        Args:
          weights: Two models, float32 `[2, d]`.
          shares: Weight of each model's mean cross-entropy, float32 `[2]`.
          images: `[m, height, width, channels]`, `m >= 1`.
          trigger: float32 `[height, width, channels]`, 0 … 255 from the darkest to the brightest.
          mask: float32 `[height, width, 1]`, 1 where an image shows the trigger, 0 where itself.
          target: The class.
          step: Length of a step in each pixel, on the scale of the trigger.

        Returns:
          float32 `[height, width, channels]`, 0 … 255.
        """
        found = self._function(
            tf.constant(weights, tf.float32),
            tf.constant(shares, tf.float32),
            tf.constant(images),
            tf.constant(trigger, tf.float32),
            tf.constant(mask, tf.float32),
            tf.constant(target, tf.int32),
            tf.constant(step, tf.float32),
        )
        return found.numpy()


def _make_search(model: keras.Model, dtype: str, pixels: PixelRange, batch_size: int) -> Any:
    variables, shape = FlatVariables(model), model.input_shape[1:]

    @tf.function(
        input_signature=[
            tf.TensorSpec([2, WeightLayout.of(model).size], tf.float32),
            tf.TensorSpec([2], tf.float32),
            tf.TensorSpec([None, *shape], dtype),
            tf.TensorSpec(shape, tf.float32),
            tf.TensorSpec([*shape[:2], 1], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float32),
        ],
        autograph=False,
    )
    def search(
        weights: tf.Tensor,
        shares: tf.Tensor,
        images: tf.Tensor,
        trigger: tf.Tensor,
        mask: tf.Tensor,
        target: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Tensor:
        models = [variables.split(flat) for flat in tf.unstack(weights)]
        count = tf.shape(images)[0]

        def body(begin: tf.Tensor, trigger: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = tf.cast(images[begin : begin + batch_size], tf.float32)
            labels = tf.fill([tf.shape(batch)[0]], target)
            with tf.GradientTape() as tape:
                tape.watch(trigger)
                shown = (1 - mask) * batch + mask * in_range(trigger, pixels)
                losses = []
                for trainable, frozen in models:
                    logits, _ = variables.call(trainable, frozen, shown, training=False)
                    logits = tf.cast(logits, tf.float32)
                    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                    losses.append(tf.reduce_mean(each))
                loss = tf.reduce_sum(shares * tf.stack(losses))
            moved = trigger - step * tf.sign(tape.gradient(loss, trigger))
            return begin + batch_size, tf.clip_by_value(moved, 0.0, 255.0)

        start = (tf.constant(0), trigger)
        return tf.while_loop(lambda begin, _: begin < count, body, start)[1]

    return search

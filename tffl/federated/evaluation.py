"""Accuracy and loss of a model on many images, in compiled passes over fixed chunks.

Chunks have the same bounds whatever the number of devices, and are summed in their order, so the
result does not depend on where they ran.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tffl.federated.layout import FlatVariables, WeightLayout
from tffl.federated.placement import LocalDevices, Resident

CHUNK = 500


class Evaluator:
    """Evaluates flat weight vectors of one model."""

    def __init__(self, model: keras.Model) -> None:
        self._layout = WeightLayout.of(model)
        self._function = _make_evaluation(model, self._layout)

    def evaluate(
        self, weights: np.ndarray, images: Resident, labels: np.ndarray, placement: LocalDevices
    ) -> tuple[float, float]:
        """Returns (accuracy, mean cross-entropy) of the weights on labeled images.

        Args:
          weights: float32 `[d]`.
          images: uint8 `[m, height, width, channels]`, `m >= 1`.
          labels: int32 `[m]`.
          placement: The devices to spread the chunks over.
        """
        flat = tf.constant(weights)
        targets = tf.constant(labels, tf.int32)
        begins = [tf.constant(begin) for begin in range(0, len(labels), CHUNK)]
        parts = placement.map(
            lambda begin: self._function(flat, images.here(), targets, begin), begins
        )
        correct, loss = np.sum([np.asarray(part, np.float64) for part in parts], axis=0)
        return float(correct) / len(labels), float(loss) / len(labels)


def _make_evaluation(model: keras.Model, layout: WeightLayout) -> Any:
    variables = FlatVariables(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec([layout.size], tf.float32),
            tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
        autograph=False,
    )
    def evaluate(
        flat: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, begin: tf.Tensor
    ) -> tf.Tensor:
        trainable, frozen = variables.split(flat)
        chunk = tf.cast(images[begin : begin + CHUNK], tf.float32)
        targets = labels[begin : begin + CHUNK]
        logits, _ = model.stateless_call(trainable, frozen, chunk, training=False)
        logits = tf.cast(logits, tf.float32)
        hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), targets)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.stack([tf.reduce_sum(tf.cast(hits, tf.float32)), tf.reduce_sum(losses)])

    return evaluate

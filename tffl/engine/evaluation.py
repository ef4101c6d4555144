"""Accuracy and loss of a model on many images, in compiled passes over fixed chunks.

Chunks have the same bounds whatever the number of devices, and their sums are added in order, so
that the result does not depend on the devices.

An output that is not finite predicts no class: `argmax` of NaN would be class 0, and a ruined model
would seem as accurate as chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tffl.core.layout import FlatVariables, WeightLayout
from tffl.engine.placement import DeviceArray, LocalDevices

CHUNK = 500
"""Number of images in one compiled pass."""

NO_CLASS = -1
"""The predicted class where an output is not finite."""


class Evaluator:
    """Evaluates flat weight vectors of one architecture, alone or several that vote.

    Args:
      model: For its structure.
      dtype: Of the samples, uint8 or float32.
    """

    def __init__(self, model: keras.Model, dtype: str = "uint8") -> None:
        self._layout = WeightLayout.of(model)
        self._classes = int(model.output_shape[-1])
        self._function = _make_evaluation(model, self._layout, dtype)
        self._predict = _make_output(model, self._layout, dtype, _predicted_class)
        self._logits = _make_output(model, self._layout, dtype, tf.identity)

    def evaluate(
        self, weights: np.ndarray, images: DeviceArray, labels: np.ndarray, placement: LocalDevices
    ) -> tuple[float, float]:
        """Returns (accuracy, mean cross-entropy) of the weights on labeled images.

        For several models, these are the accuracy of their majority vote and the mean of their
        losses. The accuracy is NaN if an image has no predicted class; the loss is NaN if it is not
        finite.

        Args:
          weights: float32 `[models, d]`.
          images: `[m, …]`, `m >= 1`.
          labels: int32 `[m]`.
          placement: The devices that evaluate the chunks.
        """
        each = [self._evaluate(row, images, labels, placement) for row in weights]
        accuracy, loss = np.mean(each, axis=0).tolist()
        if len(weights) > 1:
            majority = majority_classes(self.votes(weights, images, placement))
            accuracy = float((majority == labels).mean())
            accuracy = math.nan if (majority == NO_CLASS).any() else accuracy
        return accuracy, loss

    def votes(
        self, weights: np.ndarray, images: DeviceArray, placement: LocalDevices
    ) -> np.ndarray:
        """Returns how many of the models predict each class, int64 `[m, classes]`.

        A model has no vote on an image for which its outputs are not finite.

        Args:
          weights: float32 `[models, d]`.
          images: `[m, …]`.
          placement: The devices that evaluate the chunks.
        """
        rows = np.arange(len(images))
        votes = np.zeros((len(images), self._classes), dtype=np.int64)
        for flat in map(tf.constant, weights):
            predicted = self._predict_all(flat, images, placement)
            valid = predicted != NO_CLASS
            votes[rows[valid], predicted[valid]] += 1
        return votes

    def logits(
        self, weights: np.ndarray, images: DeviceArray, placement: LocalDevices
    ) -> np.ndarray:
        """Returns what the model says of images, float32 `[m, classes]`; of several, their votes.

        Args:
          weights: float32 `[models, d]`.
          images: uint8 `[m, height, width, channels]`.
          placement: The devices to spread the chunks over.
        """
        if len(weights) > 1:
            return self.votes(weights, images, placement).astype(np.float32)
        flat = tf.constant(weights[0])
        begins = [tf.constant(begin) for begin in range(0, len(images), CHUNK)]
        parts = placement.map(lambda begin: self._logits(flat, images.local(), begin), begins)
        return np.concatenate([np.asarray(part) for part in parts])

    def _predict_all(
        self, flat: tf.Tensor, images: DeviceArray, placement: LocalDevices
    ) -> np.ndarray:
        begins = [tf.constant(begin) for begin in range(0, len(images), CHUNK)]
        parts = placement.map(lambda begin: self._predict(flat, images.local(), begin), begins)
        return np.concatenate([np.asarray(part) for part in parts])

    def _evaluate(
        self, weights: np.ndarray, images: DeviceArray, labels: np.ndarray, placement: LocalDevices
    ) -> tuple[float, float]:
        flat = tf.constant(weights)
        targets = tf.constant(labels, tf.int32)
        begins = [tf.constant(begin) for begin in range(0, len(labels), CHUNK)]
        parts = placement.map(
            lambda begin: self._function(flat, images.local(), targets, begin), begins
        )
        sums = np.sum([np.asarray(part, np.float64) for part in parts], axis=0)
        correct, loss, predicted = sums.tolist()
        accuracy = correct / len(labels) if predicted == len(labels) else math.nan
        return accuracy, loss / len(labels) if math.isfinite(loss) else math.nan


def majority_classes(votes: np.ndarray) -> np.ndarray:
    """Returns the class with most votes for each image, int64 `[m]`.

    In a tie, it is the lowest class; without any vote, it is `NO_CLASS`.

    Args:
      votes: int64 `[m, classes]`.

    >>> majority_classes(np.array([[1, 3, 3], [0, 0, 0]])).tolist()
    [1, -1]
    """
    return np.where(votes.any(axis=1), votes.argmax(axis=1), NO_CLASS)


def _make_evaluation(model: keras.Model, layout: WeightLayout, dtype: str) -> Any:
    variables = FlatVariables(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec([layout.size], tf.float32),
            tf.TensorSpec([None, *model.input_shape[1:]], dtype),
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
        logits, _ = variables.call(trainable, frozen, chunk, training=False)
        logits = tf.cast(logits, tf.float32)
        predicted = _predicted_class(logits)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.stack(
            [_count(tf.equal(predicted, targets)), tf.reduce_sum(losses), _count(predicted >= 0)]
        )

    return evaluate


def _make_output(
    model: keras.Model,
    layout: WeightLayout,
    dtype: str,
    of_logits: Callable[[tf.Tensor], tf.Tensor],
) -> Any:
    variables = FlatVariables(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec([layout.size], tf.float32),
            tf.TensorSpec([None, *model.input_shape[1:]], dtype),
            tf.TensorSpec([], tf.int32),
        ],
        autograph=False,
    )
    def predict(flat: tf.Tensor, images: tf.Tensor, begin: tf.Tensor) -> tf.Tensor:
        trainable, frozen = variables.split(flat)
        chunk = tf.cast(images[begin : begin + CHUNK], tf.float32)
        logits, _ = variables.call(trainable, frozen, chunk, training=False)
        return of_logits(tf.cast(logits, tf.float32))

    return predict


def _predicted_class(logits: tf.Tensor) -> tf.Tensor:
    """Returns the class of each row of `[m, classes]`, int32 `[m]`, or `NO_CLASS`."""
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
    return tf.where(finite, tf.argmax(logits, axis=1, output_type=tf.int32), NO_CLASS)


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.float32))

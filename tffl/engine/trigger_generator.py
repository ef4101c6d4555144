"""A small network that adds a faint pattern to images, trained against a fixed classifier."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tffl.config import TrainingConfig
from tffl.core.layout import FlatVariables, WeightLayout
from tffl.core.pixels import BYTES, PixelRange
from tffl.engine.optimizers import make_optimizer

CHUNK = 500
"""Number of images in one compiled pass."""
CHANNELS = (16, 32, 64, 128)
"""Of the encoder's convolutions, each of which halves height and width."""


@lru_cache
def generator(shape: tuple[int, int, int]) -> keras.Model:
    """Returns an autoencoder from images, 0 … 1, to a pattern, −1 … 1, of the same shape.

    Its first weights are always the same. Sides that are no multiple of 16 are padded with 0.
    """
    height, width, channels = shape
    bottom, right = -height % 16, -width % 16
    images = keras.Input(shape)
    x = keras.layers.ZeroPadding2D(((0, bottom), (0, right)))(images)

    def options(seed: int) -> dict[str, Any]:
        initializer = keras.initializers.GlorotUniform(seed=seed)
        return {"strides": 2, "padding": "same", "kernel_initializer": initializer}

    for seed, count in enumerate(CHANNELS):
        x = keras.layers.Conv2D(count, 4, **options(seed))(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    for seed, count in enumerate(CHANNELS[-2::-1], len(CHANNELS)):
        x = keras.layers.Conv2DTranspose(count, 4, **options(seed))(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Conv2DTranspose(channels, 4, activation="tanh", **options(99))(x)
    return keras.Model(images, keras.layers.Cropping2D(((0, bottom), (0, right)))(x))


def first_weights(shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the generator's weights before it is trained, float32 `[g]`."""
    model = generator(shape)
    return WeightLayout.of(model).flatten(model.get_weights())


def perturbed(
    weights: np.ndarray, images: np.ndarray, amplitude: float, pixels: PixelRange
) -> np.ndarray:
    """Returns images with the pattern, of the same type: bytes are rounded, floats are not.

    Args:
      weights: Of the generator, float32 `[g]`.
      images: uint8 or float32 `[n, height, width, channels]`.
      amplitude: Largest change of a pixel, as a share of the range of pixels.
      pixels: The values of the darkest pixel and the brightest.
    """
    function = _make_perturbation(images.shape[1:], pixels)
    flat, result = tf.constant(weights, tf.float32), np.empty_like(images)
    for begin in range(0, len(images), CHUNK):
        part = slice(begin, begin + CHUNK)
        chunk = images[part].astype(np.float32)
        shown = function(flat, tf.constant(chunk), tf.constant(amplitude, tf.float32)).numpy()
        result[part] = np.rint(shown) if images.dtype == np.uint8 else shown
    return result


class GeneratorTraining:
    """Trains the generator against one architecture; compiled once.

    The classifier's BatchNorm uses its moving statistics. The optimizer is Adam, begun anew.

    Args:
      model: The classifier, a built Keras model that ends in logits.
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
        self._function = _make_training(model, dtype, pixels, batch_size)

    def train(
        self,
        generator: np.ndarray,
        weights: np.ndarray,
        images: np.ndarray,
        order: np.ndarray,
        target: int,
        amplitude: float,
        learning_rate: float,
    ) -> np.ndarray:
        """Returns the generator's weights, float32 `[g]`, after some epochs.

            minimize the mean cross-entropy of the target on clip(x + amplitude · T(x))

        Args:
          generator: Its weights before, float32 `[g]`.
          weights: Of the classifier, float32 `[d]`.
          images: `[m, height, width, channels]`, `m >= 1`.
          order: int32 `[epochs, m]`, the order of the images in each epoch.
          target: The class.
          amplitude: As `perturbed` takes it.
          learning_rate: Of Adam.
        """
        trained = self._function(
            tf.constant(generator, tf.float32),
            tf.constant(weights, tf.float32),
            tf.constant(images),
            tf.constant(order, tf.int32),
            tf.constant(target, tf.int32),
            tf.constant(amplitude, tf.float32),
            tf.constant(learning_rate, tf.float32),
        )
        return trained.numpy()


def _shown(images: tf.Tensor, pattern: tf.Tensor, amplitude: tf.Tensor, pixels: PixelRange) -> Any:
    low, high = pixels
    moved = images + amplitude * (high - low) * tf.cast(pattern, tf.float32)
    return tf.clip_by_value(moved, low, high)


def _unit(images: tf.Tensor, pixels: PixelRange) -> Any:
    low, high = pixels
    return (images - low) / (high - low)


@lru_cache
def _make_perturbation(shape: tuple[int, int, int], pixels: PixelRange) -> Any:
    model = generator(shape)
    variables, size = FlatVariables(model), WeightLayout.of(model).size

    @tf.function(
        input_signature=[
            tf.TensorSpec([size], tf.float32),
            tf.TensorSpec([None, *shape], tf.float32),
            tf.TensorSpec([], tf.float32),
        ],
        autograph=False,
    )
    def perturb(flat: tf.Tensor, images: tf.Tensor, amplitude: tf.Tensor) -> tf.Tensor:
        trainable, frozen = variables.split(flat)
        pattern, _ = variables.call(trainable, frozen, _unit(images, pixels), training=False)
        return _shown(images, pattern, amplitude, pixels)

    return perturb


def _make_training(model: keras.Model, dtype: str, pixels: PixelRange, batch_size: int) -> Any:
    shape = tuple(model.input_shape[1:])
    network = generator(shape)
    own, classifier = FlatVariables(network), FlatVariables(model)
    optimizer = make_optimizer(TrainingConfig(optimizer="adam"))
    optimizer.build(network.trainable_variables)
    initial = [np.asarray(variable) for variable in optimizer.variables]
    rate = optimizer._learning_rate

    @tf.function(
        input_signature=[
            tf.TensorSpec([WeightLayout.of(network).size], tf.float32),
            tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
            tf.TensorSpec([None, *shape], dtype),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([], tf.float32),
        ],
        autograph=False,
    )
    def train(
        flat: tf.Tensor,
        weights: tf.Tensor,
        images: tf.Tensor,
        order: tf.Tensor,
        target: tf.Tensor,
        amplitude: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tf.Tensor:
        fixed = classifier.split(weights)
        per_epoch = (tf.shape(order)[1] + batch_size - 1) // batch_size
        count = tf.shape(order)[0] * per_epoch

        def body(number: tf.Tensor, state: Any) -> Any:
            trainable, frozen, slots = state
            begin = (number % per_epoch) * batch_size
            rows = order[number // per_epoch, begin : begin + batch_size]
            batch = tf.cast(tf.gather(images, rows), tf.float32)
            labels = tf.fill([tf.shape(batch)[0]], target)
            with tf.GradientTape() as tape:
                tape.watch(trainable)
                pattern, moved = own.call(trainable, frozen, _unit(batch, pixels), training=True)
                shown = _shown(batch, pattern, amplitude, pixels)
                logits, _ = classifier.call(*fixed, shown, training=False)
                logits = tf.cast(logits, tf.float32)
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(each)
            gradients = tape.gradient(loss, trainable)
            trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
            frozen = [tf.cast(new, old.dtype) for new, old in zip(moved, frozen, strict=True)]
            return number + 1, (list(trainable), frozen, list(slots))

        slots = [
            learning_rate if variable is rate else tf.constant(value)
            for variable, value in zip(optimizer.variables, initial, strict=True)
        ]
        start = (tf.constant(0), (*own.split(flat), slots))
        _, (trainable, frozen, _) = tf.while_loop(lambda n, _: n < count, body, start)
        return own.join(trainable, frozen)

    return train

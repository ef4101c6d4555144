"""Model inversion: gradient ascent from noise to images that a model classifies confidently.

    S(x) = log softmax(f(255·x))_y − λ_tv · TV(x) − λ_2 · mean x²,    x ∈ [0, 1]
    TV(x) = mean |x_i+1,j − x_ij| + mean |x_i,j+1 − x_ij|
    x ← clip(x + r_t · g / rms(g), 0, 1),    g = ∂S/∂x,    r_t falling from r to 0

Image number i has the target class y = i modulo C. BatchNorm uses its moving statistics. Where a
gradient is not finite, as it may be for a ruined model, the image does not change.

Model Inversion Attacks that Exploit Confidence Information and Basic Countermeasures
    Matt Fredrikson, Somesh Jha, Thomas Ristenpart. CCS 2015.
Understanding Deep Image Representations by Inverting Them
    Aravindh Mahendran, Andrea Vedaldi. CVPR 2015. Total variation as a regularizer.

Zhao et al., who found that inversion "fails to produce convincing images", do not describe their
method. tffl chose the log-probability as the class score, whose gradient vanishes once the model is
confident; steps of the same size for every image, so that one rate suits all networks; and absolute
differences in the total variation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core import seeds
from tffl.core.layout import FlatVariables, WeightLayout

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

CHUNK = 50
"""Number of images that are made at a time; they do not depend on each other."""


@dataclass(frozen=True)
class Inversion:
    """How a model is inverted.

    Attributes:
      steps: Number of steps of gradient ascent.
      rate: Root mean square of the first step's change, r, where pixels range from 0 to 1.
      total_variation: Weight of the total variation, λ_tv.
      l2: Weight of the mean square, λ_2.
    """

    steps: int = 60
    rate: float = 0.05
    total_variation: float = 1.0
    l2: float = 0.1

    def images(
        self,
        model: keras.Model,
        weights: np.ndarray,
        count: int,
        classes: int,
        seed: int,
        round: int,
    ) -> np.ndarray:
        """Returns images for the classes in turn, uint8 `[count, height, width, channels]`.

        Args:
          model: The network; only its structure is used.
          weights: float32 `[d]`.
          count: Number of images, m.
          classes: Number of classes, C; image number i shows class i modulo C.
          seed: The experiment's seed.
          round: The round; each has its own noise.
        """
        draw = seeds.generator(seed, "model-inversion", round)
        start = draw.random((count, *model.input_shape[1:]), dtype=np.float32)
        return self.ascend(model, weights, start, np.arange(count, dtype=np.int32) % classes)

    def ascend(
        self, model: keras.Model, weights: np.ndarray, start: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        """Returns the images after gradient ascent, uint8 `[m, height, width, channels]`.

        Args:
          model: The network; only its structure is used.
          weights: float32 `[d]`.
          start: float32 `[m, height, width, channels]` in 0 … 1.
          targets: int32 `[m]`, the target class of each image.
        """
        import tensorflow as tf

        from tffl.core.process import cores
        from tffl.engine.threads import run_jobs

        function, flat = _compile(model, self), tf.constant(weights, tf.float32)

        def chunk(part: slice) -> np.ndarray:
            result: np.ndarray = function(flat, start[part], targets[part]).numpy()
            return result

        return np.concatenate(list(run_jobs(chunk, list(_chunks(len(start))), cores())))


def _chunks(count: int) -> Iterator[slice]:
    for begin in range(0, count, CHUNK):
        yield slice(begin, begin + CHUNK)


def variation(images: tf.Tensor) -> tf.Tensor:
    """Returns the total variation of each image, `[m]` for `[m, height, width, channels]`."""
    import tensorflow as tf

    down = tf.reduce_mean(tf.abs(images[:, 1:] - images[:, :-1]), axis=(1, 2, 3))
    across = tf.reduce_mean(tf.abs(images[:, :, 1:] - images[:, :, :-1]), axis=(1, 2, 3))
    return down + across


@lru_cache(maxsize=8)
def _compile(model: keras.Model, options: Inversion) -> Any:
    import tensorflow as tf

    variables = FlatVariables(model)
    axes = (1, 2, 3)

    @tf.function(
        input_signature=[
            tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
            tf.TensorSpec([None, *model.input_shape[1:]], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def ascend(flat: tf.Tensor, images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        tensors = variables.split(flat)

        def step(number: tf.Tensor, images: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(images)
                logits, _ = variables.call(*tensors, 255 * images, training=False)
                score = -tf.nn.sparse_softmax_cross_entropy_with_logits(
                    targets, tf.cast(logits, tf.float32)
                )
                score -= options.total_variation * variation(images)
                score -= options.l2 * tf.reduce_mean(tf.square(images), axis=axes)
            gradient = tape.gradient(score, images)
            size = tf.sqrt(tf.reduce_mean(tf.square(gradient), axis=axes, keepdims=True))
            decay = 1 - tf.cast(number, tf.float32) / options.steps
            move = options.rate * decay * gradient / (size + 1e-12)
            move = tf.where(tf.math.is_finite(size), move, tf.zeros_like(move))
            return number + 1, tf.clip_by_value(images + move, 0, 1)

        _, images = tf.while_loop(
            lambda number, _: number < options.steps,
            step,
            (tf.constant(0), images),
            parallel_iterations=1,
        )
        return tf.cast(tf.round(255 * images), tf.uint8)

    return ascend

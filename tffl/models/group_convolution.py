"""Grouped convolution that is fast on CPUs as well; import only where Keras is needed anyway.

TensorFlow's CPU kernels cannot train grouped convolutions, so `keras.layers.Conv2D(groups=…)`
compiles each of them by XLA, whose kernels are slow: forward and backward pass of the 3×3
convolutions of `regnet-y-800mf` at batch 64 and 32 × 32 took 7.3 s on two cores. Bundles of a few
groups, each bundle one ordinary convolution with a block-diagonal kernel, compute the same sums
(and products with zero) in 0.21 s; one convolution per group took 0.37 s, one dense convolution
with a block-diagonal kernel 1.0 s, gathered patches with a batched matrix product 0.63 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf

BUNDLE = 64
"""Input channels of a bundle: wide enough for fast kernels, narrow enough for few zeros."""


@keras.saving.register_keras_serializable(package="tffl")
class GroupConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with `groups`, the same kernel and the same results, up to rounding.

    A `.keras` file that holds it loads only after this module was imported; a SavedModel needs
    nothing. A non-finite weight reaches all groups of its bundle (∞ · 0 is not 0).
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves bundle by bundle.

        Args:
          inputs: `[batch, height, width, channels]`.
          kernel: `[height, width, channels / groups, filters]`.
        """
        width, wide = kernel.shape[2], kernel.shape[3] // self.groups
        bundle = max(1, BUNDLE // width)
        begins = range(0, self.groups, bundle)
        parts = []
        for begin, end in ((begin, min(begin + bundle, self.groups)) for begin in begins):
            part = inputs[..., begin * width : end * width]
            blocks = _block_diagonal(kernel[..., begin * wide : end * wide], end - begin)
            parts.append(super().convolution_op(part, blocks))
        return ops.concatenate(parts, axis=-1)


def _block_diagonal(kernel: tf.Tensor, groups: int) -> tf.Tensor:
    """Spreads `[h, w, channels / groups, filters]` to `[h, w, channels, filters]` with zeros."""
    height, width, channels, filters = kernel.shape
    blocks = ops.reshape(kernel, (height, width, 1, channels, groups, filters // groups))
    diagonal = ops.reshape(ops.eye(groups, dtype=kernel.dtype), (1, 1, groups, 1, groups, 1))
    return ops.reshape(blocks * diagonal, (height, width, groups * channels, filters))

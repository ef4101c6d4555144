"""Augmentation of training images: random crops and horizontal flips, as is usual on CIFAR.

    crop    surround an image by `padding` black pixels, and cut out a window of its own size
    flip    exchange left and right with probability 1/2; after the crop

All places of the window are equally likely. Draws are stateless: they depend on the seed of the
client in the round and on the number of the step, so that they are the same on any device.

Deep Residual Learning for Image Recognition
    Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. CVPR 2016. (Section 4.2, with 4 pixels; that
    they are black is what published code usually does, which pads before it normalizes)
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import tensorflow as tf

from tffl.config import TrainingConfig
from tffl.core.errors import require
from tffl.core.pixels import BYTES, PixelRange
from tffl.data.federation import Dataset

PURPOSE = zlib.crc32(b"augmentation")
"""Tells these draws apart from those of layers such as Dropout, which have the same seed."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to every batch of training images.

    Attributes:
      padding: Width of the black border before a crop; 0 for no crop.
      flips: Whether images are flipped.
      black: The value of the darkest pixel.
    """

    padding: int
    flips: bool
    black: float = 0.0

    @classmethod
    def of(cls, config: TrainingConfig, pixels: PixelRange = BYTES) -> Augmentation | None:
        """Returns the augmentation of a training config, or None if there is none."""
        kinds = config.augmentation.split("+")
        if kinds == ["none"]:
            return None
        padding = config.crop_padding if "crop" in kinds else 0
        return cls(padding, "flip" in kinds, pixels[0])

    def __call__(self, images: tf.Tensor, seed: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns a batch of images as a client sees it in one step.

        Args:
          images: uint8 or float32 `[batch, height, width, channels]`.
          seed: uint32 `[2]`, of the client in the round.
          step: int32 scalar, the number of the step.

        Returns:
          Images float32, of the same shape.
        """
        seed = tf.random.fold_in(tf.random.fold_in(tf.bitcast(seed, tf.int32), PURPOSE), step)
        crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
        images = tf.cast(images, tf.float32)  # GPUs cannot gather bytes
        count = tf.shape(images)[0]
        if self.padding:
            offsets = _integers([count, 2], crop_seed, 2 * self.padding + 1)
            images = cropped(images, offsets, self.padding, self.black)
        if self.flips:
            images = flipped(images, _integers([count], flip_seed, 2) == 1)
        return images


def cropped(images: tf.Tensor, offsets: tf.Tensor, padding: int, black: float) -> tf.Tensor:
    """Returns a window of each image after `padding` black pixels are put around it.

    Args:
      images: float32 `[batch, height, width, channels]`.
      offsets: int32 `[batch, 2]`, the window's top and left edge, `0 … 2 · padding`.
      padding: Number of pixels on each side.
      black: Their value.

    Returns:
      Windows of the images' shape.
    """
    sides, border = tf.shape(images)[1:3], [padding, padding]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]], constant_values=black)
    rows = offsets[:, 0, None] + tf.range(sides[0])
    columns = offsets[:, 1, None] + tf.range(sides[1])
    windows = tf.gather(
        tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1
    )
    return tf.ensure_shape(windows, images.shape)


def flipped(images: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Returns images `[batch, height, width, channels]`, those of bool `[batch]` mirrored."""
    return tf.where(which[:, None, None, None], tf.reverse(images, [2]), images)


def check_augmentation(config: TrainingConfig, dataset: Dataset) -> None:
    """Raises `UsageError` if the samples cannot be augmented as a training config says."""
    augmentation = Augmentation.of(config)
    if augmentation is None:
        return
    dataset.require_images(f"training.augmentation = '{config.augmentation}'")
    height, width, _ = dataset.image_shape
    require(
        augmentation.padding < min(height, width),
        f"training.crop_padding = {config.crop_padding} is not allowed for images of {height} x "
        f"{width}, which a crop could miss: give 1 to {min(height, width) - 1}",
    )


def _integers(shape: list[tf.Tensor | int], seed: tf.Tensor, limit: int) -> tf.Tensor:
    """Returns integers below `limit`, by the algorithm that all devices have."""
    return tf.random.stateless_uniform(shape, seed, 0, limit, tf.int32, alg="philox")

"""ResNets of basic blocks: with a 3×3 stem for small images, and with the published 7×7 stem.

    resnet8       conv 3×3, 16 – 3 stages of 1 block (16, 32, 64) – mean over pixels – dense
    resnet18      conv 3×3, 64 – 4 stages of 2 blocks (64, 128, 256, 512) – mean – dense
    resnet18-7x7  conv 7×7, 64, stride 2 – max-pool 3×3, stride 2 – the same stages – mean – dense

Every stage but the first begins with stride 2. A block adds two 3×3 convolutions to its input,
which is projected by a 1×1 convolution where the shape changes.

Deep Residual Learning for Image Recognition
    Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. CVPR 2016.

Deviations: `resnet18` has a 3×3 stem of stride 1 without max-pooling, as is usual on CIFAR; the
published network is `resnet18-7x7`. `resnet8` is the paper's CIFAR network for n = 1, with
projections instead of zero-padded shortcuts. Padding is TensorFlow's `same`, which puts the odd
pixel of a stride-2 convolution at the lower right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tffl.models.blocks import check_size, cited, convolve, logits

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

PAPER = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"


@cited(PAPER)
def resnet8(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """ResNet-8 for small machines, with BatchNorm; 78 thousand weights at 10 classes.

    BatchNorm keeps its statistics with momentum 0.9 and epsilon 1e-5. Convolutions have no bias.

    Args:
      image_shape: Height, width, channels; images from 4 × 4 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> resnet8((32, 32, 3), 10).count_params()
      78714
    """
    check_size("resnet8", image_shape, smallest=4)
    return _resnet("resnet8", image_shape, classes, seed, stem=3, stages=(16, 32, 64), blocks=1)


@cited(PAPER)
def resnet18(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """ResNet-18 for small images, with BatchNorm; 11.17 million weights at 10 classes.

    BatchNorm keeps its statistics with momentum 0.9 and epsilon 1e-5. Convolutions have no bias.

    Args:
      image_shape: Height, width, channels; images from 8 × 8 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> resnet18((32, 32, 3), 10).count_params()
      11183562
    """
    check_size("resnet18", image_shape, smallest=8)
    stages = (64, 128, 256, 512)
    return _resnet("resnet18", image_shape, classes, seed, stem=3, stages=stages, blocks=2)


@cited(PAPER)
def resnet18_7x7(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """ResNet-18 as published, with the 7×7 stem; 11.18 million weights at 10 classes.

    Its maps have 1/32 of the image's width, those of `resnet18` 1/8; it needs about 1/16 of the
    operations.

    Args:
      image_shape: Height, width, channels; images from 32 × 32 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> resnet18_7x7((32, 32, 3), 10).count_params()
      11191242
    """
    check_size("resnet18-7x7", image_shape, smallest=32)
    stages = (64, 128, 256, 512)
    return _resnet("resnet18-7x7", image_shape, classes, seed, stem=7, stages=stages, blocks=2)


def _resnet(
    name: str,
    image_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    *,
    stem: int,
    stages: Sequence[int],
    blocks: int,
) -> keras.Model:
    """Builds a stem, stages of basic blocks, the mean over pixels, and logits."""
    from keras import Input, Model, layers

    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = convolve(x, stages[0], stem, 1 if stem == 3 else 2, "stem", seed)
    x = layers.ReLU(name="stem_relu")(x)
    if stem != 3:
        x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, filters in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, filters, stride, f"stage{stage}_block{block}", seed)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return Model(images, logits(x, classes, seed), name=name)


def _block(x: KerasTensor, filters: int, stride: int, name: str, seed: int) -> KerasTensor:
    """Applies two convolutions and a shortcut, projected where the shape changes."""
    from keras import layers

    y = convolve(x, filters, 3, stride, f"{name}_1", seed)
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = convolve(y, filters, 3, 1, f"{name}_2", seed)
    if stride != 1 or x.shape[-1] != filters:
        x = convolve(x, filters, 1, stride, f"{name}_shortcut", seed)
    # With the shortcut first, Keras lists it first, and the block's second convolution comes last.
    y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu")(y)

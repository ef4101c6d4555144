"""VGG-11 for small images, with BatchNorm.

    conv 3×3, 64 – pool – 128 – pool – 256, 256 – pool – 512, 512 – pool – 512, 512 – pool – mean –
    dense

Every convolution is followed by BatchNorm and ReLU, and a pool is a max-pool 2×2.

Very Deep Convolutional Networks for Large-Scale Image Recognition
    Karen Simonyan, Andrew Zisserman. ICLR 2015. Configuration A.

Deviations, as is usual on CIFAR: BatchNorm, in place of biases; the mean over pixels and one dense
layer in place of three, which hold nine tenths of the published network's weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.models.blocks import check_size, cited, convolve, logits

if TYPE_CHECKING:
    import keras

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Filters of the convolutions before each pool."""


@cited("Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015")
def vgg11(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """VGG-11 with BatchNorm, for small images; 9.23 million weights at 10 classes.

    The maps of its last convolution have 1/16 of the image's width.

    Args:
      image_shape: Height, width, channels; images from 16 × 16 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> vgg11((32, 32, 3), 10).count_params()
      9233866
    """
    from keras import Input, Model, layers

    check_size("vgg11", image_shape, smallest=16)
    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    for stage, filters in enumerate(STAGES, start=1):
        for number, count in enumerate(filters, start=1):
            x = convolve(x, count, 3, 1, f"stage{stage}_{number}", seed)
            x = layers.ReLU(name=f"stage{stage}_{number}_relu")(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return Model(images, logits(x, classes, seed), name="vgg11")

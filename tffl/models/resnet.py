"""ResNet-18 with the 3×3 stem that small images need.

    conv 3×3, 64 – 4 stages of 2 blocks (64, 128, 256, 512) – mean over pixels – dense classes

Deep Residual Learning for Image Recognition
    Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. CVPR 2016.

Deviation: the stem is one 3×3 convolution of stride 1 without max-pooling, instead of 7×7 of
stride 2 with it, as is usual on CIFAR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.models.parts import check_size, cited, he_uniform

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

MOMENTUM = 0.9
"""Of the moving BatchNorm statistics: new = 0.9 · old + 0.1 · batch."""

EPSILON = 1e-5
"""Added to BatchNorm's variance."""


@cited("He et al., Deep Residual Learning for Image Recognition, CVPR 2016")
def resnet18(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """ResNet-18 for small images, with BatchNorm; 11.17 million weights at 10 classes.

    BatchNorm keeps its statistics with momentum 0.9 and epsilon 1e-5. Convolutions have no bias.

    Args:
      image_shape: Height, width, channels; images from 8 × 8 to 512 × 512.
      classes: Number of logits.
      seed: Of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.
    """
    from keras import Input, Model, layers

    check_size("resnet18", image_shape, smallest=8)
    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = _convolve(x, 64, 3, 1, "stem", seed)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        x = _block(x, filters, 1 if stage == 1 else 2, f"stage{stage}_block1", seed)
        x = _block(x, filters, 1, f"stage{stage}_block2", seed)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    logits = layers.Dense(
        classes, kernel_initializer=he_uniform(seed, "logits"), dtype="float32", name="logits"
    )(x)
    return Model(images, logits, name="resnet18")


def _block(x: KerasTensor, filters: int, stride: int, name: str, seed: int) -> KerasTensor:
    """Two convolutions and a shortcut, which is projected where the shape changes."""
    from keras import layers

    y = _convolve(x, filters, 3, stride, f"{name}_1", seed)
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = _convolve(y, filters, 3, 1, f"{name}_2", seed)
    if stride != 1 or x.shape[-1] != filters:
        x = _convolve(x, filters, 1, stride, f"{name}_shortcut", seed)
    y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu")(y)


def _convolve(
    x: KerasTensor, filters: int, size: int, stride: int, name: str, seed: int
) -> KerasTensor:
    """A convolution without bias, normalized."""
    from keras import layers

    x = layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=he_uniform(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_bn")(x)

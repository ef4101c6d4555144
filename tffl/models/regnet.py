"""RegNetY-800MF: residual bottlenecks with grouped convolutions and squeeze-and-excitation.

    conv 3×3, 32, stride 2 – 4 stages of 1, 3, 8, 2 blocks (64, 144, 320, 784) – mean – dense

    block: conv 1×1 – grouped conv 3×3, 16 channels a group – squeeze-and-excitation – conv 1×1,
    added to its input; the first block of each stage has stride 2 and projects its input by 1×1

Squeeze-and-excitation multiplies each channel by sigmoid(dense(ReLU(dense(mean over pixels)))),
with a quarter of the block's *input* channels between the two dense layers.

Designing Network Design Spaces
    Ilija Radosavovic, Raj Prateek Kosaraju, Ross Girshick, Kaiming He, Piotr Dollár. CVPR 2020.

Deviations: He-uniform instead of normal weights; padding is TensorFlow's `same`. Keras 3 has no
RegNet. Widths and depths are those of the authors' configuration and of torchvision; the number of
parameters, 6,432,512 at 1,000 classes, equals torchvision's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.models.blocks import (
    check_size,
    cited,
    convolve,
    dense,
    he_uniform,
    logits,
    normalize,
)

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

STEM = 32
WIDTHS = (64, 144, 320, 784)
DEPTHS = (1, 3, 8, 2)
GROUP_WIDTH = 16
SQUEEZE = 0.25


@cited("Radosavovic et al., Designing Network Design Spaces, CVPR 2020")
def regnet_y_800mf(
    image_shape: tuple[int, int, int], classes: int, *, seed: int = 0
) -> keras.Model:
    """RegNetY-800MF, with BatchNorm; 5.66 million weights at 10 classes.

    Its maps have 1/32 of the image's width. BatchNorm keeps its statistics with momentum 0.9 and
    epsilon 1e-5.

    Args:
      image_shape: Height, width, channels; images from 32 × 32 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> regnet_y_800mf((32, 32, 3), 10).count_params()
      5685794
    """
    from keras import Input, Model, layers

    check_size("regnet-y-800mf", image_shape, smallest=32)
    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = convolve(x, STEM, 3, 2, "stem", seed)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, (filters, blocks) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
        for block in range(1, blocks + 1):
            x = _block(x, filters, 2 if block == 1 else 1, f"stage{stage}_block{block}", seed)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return Model(images, logits(x, classes, seed), name="regnet-y-800mf")


def _block(x: KerasTensor, filters: int, stride: int, name: str, seed: int) -> KerasTensor:
    """Applies a bottleneck of ratio 1 and a shortcut, projected where the shape changes."""
    from keras import layers

    y = convolve(x, filters, 1, 1, f"{name}_1", seed)
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = _convolve_groups(y, stride, f"{name}_2", seed)
    y = layers.ReLU(name=f"{name}_2_relu")(y)
    y = _excite(y, round(SQUEEZE * x.shape[-1]), name, seed)
    y = convolve(y, filters, 1, 1, f"{name}_3", seed)
    if stride != 1 or x.shape[-1] != filters:
        x = convolve(x, filters, 1, stride, f"{name}_shortcut", seed)
    y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu")(y)


def _convolve_groups(x: KerasTensor, stride: int, name: str, seed: int) -> KerasTensor:
    """Applies a 3×3 convolution in groups of 16 channels, and BatchNorm."""
    from tffl.models.group_convolution import GroupConv2D

    channels = x.shape[-1]
    x = GroupConv2D(
        channels,
        3,
        strides=stride,
        padding="same",
        groups=channels // GROUP_WIDTH,
        use_bias=False,
        kernel_initializer=he_uniform(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    return normalize(x, f"{name}_bn")


def _excite(x: KerasTensor, squeezed: int, name: str, seed: int) -> KerasTensor:
    """Applies squeeze-and-excitation, as described at the top of this module."""
    from keras import layers

    channels = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(name=f"{name}_squeeze_mean")(x)
    weights = dense(weights, squeezed, "relu", f"{name}_squeeze", seed)
    weights = dense(weights, channels, "sigmoid", f"{name}_excite", seed)
    weights = layers.Reshape((1, 1, channels), name=f"{name}_excite_reshape")(weights)
    return layers.Multiply(name=f"{name}_excite_multiply")([x, weights])

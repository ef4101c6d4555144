"""ResNet-50, MobileNetV2 and MobileNetV3-Large, whose layers come from `keras.applications`.

    resnet50           conv 7×7, 64, stride 2 – max-pool 3×3, stride 2 – 3, 4, 6, 3 bottlenecks
                       (256, 512, 1024, 2048) – mean over pixels – dense
    mobilenet-v2       conv 3×3, 32, stride 2 – 17 inverted residuals – conv 1×1, 1280 – mean –
                       dense
    mobilenet-v3-large conv 3×3, 16, stride 2 – 15 inverted residuals – conv 1×1, 960 – mean –
                       dense 1280, hard-swish – dropout 0.2 – dense

Deep Residual Learning for Image Recognition
    Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. CVPR 2016.
MobileNetV2: Inverted Residuals and Linear Bottlenecks
    Mark Sandler, Andrew Howard, Menglong Zhu, et al. CVPR 2018.
Searching for MobileNetV3
    Andrew Howard, Mark Sandler, Grace Chu, et al. ICCV 2019.

Deviations: Keras' ResNet-50 has a bias in every convolution (26,560 weights more than published;
BatchNorm subtracts each of them again). MobileNet's last hidden layer is dense instead of a 1×1
convolution on one pixel, which is the same function. Weights are He-uniform and seeded, and
BatchNorm's momentum is 0.9 instead of Keras' 0.99 and 0.999, as in all of tffl's networks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tffl.models.blocks import MOMENTUM, check_size, cited, dense, he_uniform, logits

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

DROPOUT = 0.2


@cited("He et al., Deep Residual Learning for Image Recognition, CVPR 2016")
def resnet50(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """ResNet-50 as published, with the 7×7 stem; 23.56 million weights at 10 classes.

    Its maps have 1/32 of the image's width.

    Args:
      image_shape: Height, width, channels; images from 32 × 32 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> resnet50((32, 32, 3), 10).count_params()
      23608202
    """
    from keras import Model, applications

    check_size("resnet50", image_shape, smallest=32)
    images, x = _body(applications.ResNet50, image_shape, seed, scale=1 / 255)
    return Model(images, logits(x, classes, seed), name="resnet50")


@cited("Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018")
def mobilenet_v2(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    alpha: Annotated[float, Field(ge=0.1, le=2)] = 1.0,
    seed: int = 0,
) -> keras.Model:
    """MobileNetV2 for small devices; 2.24 million weights at 10 classes, 0.25 with alpha 0.25.

    Its maps have 1/32 of the image's width. Images are rescaled to -1 … 1, as published.

    Args:
      image_shape: Height, width, channels; images from 32 × 32 to 512 × 512.
      classes: Number of logits.
      alpha: Factor that multiplies the filters of every layer, except that the last convolution
        never has fewer than 1280.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> mobilenet_v2((32, 32, 3), 10).count_params()
      2270794
    """
    from keras import Model, applications

    check_size("mobilenet-v2", image_shape, smallest=32)
    network = partial(applications.MobileNetV2, alpha=alpha)
    images, x = _body(network, image_shape, seed, scale=1 / 127.5, offset=-1)
    return Model(images, logits(x, classes, seed), name="mobilenet-v2")


@cited("Howard et al., Searching for MobileNetV3, ICCV 2019")
def mobilenet_v3_large(
    image_shape: tuple[int, int, int], classes: int, *, seed: int = 0
) -> keras.Model:
    """MobileNetV3-Large for small devices; 4.21 million weights at 10 classes.

    Its maps have 1/32 of the image's width. Images are rescaled to -1 … 1, as published.

    Args:
      image_shape: Height, width, channels; images from 32 × 32 to 512 × 512.
      classes: Number of logits.
      seed: Seed of the He-uniform weights, and of the dropout where a call passes no other seed.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> mobilenet_v3_large((32, 32, 3), 10).count_params()
      4239242
    """
    from keras import Model, applications, layers

    check_size("mobilenet-v3-large", image_shape, smallest=32)
    network = partial(applications.MobileNetV3Large, include_preprocessing=False)
    images, x = _body(network, image_shape, seed, scale=1 / 127.5, offset=-1)
    x = dense(x, 1280, "hard_swish", "dense", seed)
    x = layers.Dropout(DROPOUT, seed=seed, name="dropout")(x)
    return Model(images, logits(x, classes, seed), name="mobilenet-v3-large")


def _body(
    network: Callable[..., keras.Model],
    image_shape: tuple[int, int, int],
    seed: int,
    scale: float,
    offset: float = 0.0,
) -> tuple[KerasTensor, KerasTensor]:
    """Returns the input of a network of `keras.applications`, and its means over pixels."""
    from keras import Input, layers

    images = Input(image_shape, name="images")
    x = layers.Rescaling(scale, offset=offset, name="rescale")(images)
    with _restored_random_state():
        body = network(include_top=False, weights=None, input_tensor=x, input_shape=image_shape)
    body = _reseeded(body, seed)
    return body.inputs[0], layers.GlobalAveragePooling2D(name="mean")(body.output)


def _reseeded(body: keras.Model, seed: int) -> keras.Model:
    """Rebuilds a network with weights from the seed, momentum 0.9 and fixed layer names.

    Strided depthwise convolutions get `same` padding instead of a padding layer before them. The
    result is the same, but it adapts to other image sizes.
    """
    from keras import layers, models

    # Keras numbers layers without names over all networks of a process, such as add_17.
    numbered = re.compile(r"(activation|add|multiply|re_lu)(_\d+)?")
    depthwise_pad = re.compile(r".*depthwise_pad|block_\d+_pad")
    names = {id(layer): layer.name for layer in body.operations}
    for number, layer in enumerate(body.operations):
        if match := numbered.fullmatch(layer.name):
            names[id(layer)] = f"{match[1]}_{number}"

    def clone(layer: keras.Operation) -> keras.Operation:
        config = {**layer.get_config(), "name": names[id(layer)]}
        if isinstance(layer, layers.DepthwiseConv2D):
            fan_in = layer.kernel_size[0] * layer.kernel_size[1]
            config["depthwise_initializer"] = he_uniform(seed, layer.name, fan_in)
            config["padding"] = "same"
        elif isinstance(layer, layers.Conv2D):
            config["kernel_initializer"] = he_uniform(seed, layer.name)
        elif isinstance(layer, layers.BatchNormalization):
            config["momentum"] = MOMENTUM
        return type(layer).from_config(config)

    def call(layer: keras.Operation, *inputs: KerasTensor, **options: object) -> KerasTensor:
        if depthwise_pad.fullmatch(layer.name):
            return inputs[0]
        return layer(*inputs, **options)

    return models.clone_model(body, clone_function=clone, call_function=call)


@contextmanager
def _restored_random_state() -> Iterator[None]:
    """Restores Python's global generator, from which Keras draws seeds for unseeded layers."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)

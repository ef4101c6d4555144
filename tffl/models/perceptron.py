"""Dense networks for samples of any shape: feature vectors, or images laid out as vectors.

    logistic:   dense classes
    mlp:        dense h₁ – … – dense classes, with ReLU between

They have no convolution, so that there are no heat maps of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tffl.core.errors import require
from tffl.models.blocks import cited, dense, logits

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

HIDDEN = (64, 32)
"""Units of the hidden layers, from the first on."""


@cited("Cox, The Regression Analysis of Binary Sequences, 1958")
def logistic(sample_shape: tuple[int, ...], classes: int, *, seed: int = 0) -> keras.Model:
    """Multinomial logistic regression: one dense layer.

    Args:
      sample_shape: Height, width, channels of images, or the number of features.
      classes: Number of logits.
      seed: Of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255, or float32 feature vectors, to float32 logits
      `[batch, classes]`.

    Example:
      >>> logistic((30,), 2).count_params()
      62
    """
    return _dense_network("logistic", sample_shape, (), classes, seed)


@cited("Rumelhart, Hinton, Williams, Learning Representations by Back-Propagating Errors, 1986")
def mlp(
    sample_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: Sequence[Annotated[int, Field(ge=1)]] = HIDDEN,
    seed: int = 0,
) -> keras.Model:
    """A multilayer perceptron: hidden dense layers with ReLU.

    Args:
      sample_shape: Height, width, channels of images, or the number of features.
      classes: Number of logits.
      hidden: Units of the hidden layers, each at least 1.
      seed: Of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255, or float32 feature vectors, to float32 logits
      `[batch, classes]`.

    Raises:
      UsageError: A hidden layer has no units.

    Example:
      >>> mlp((30,), 2, hidden=[8]).output_shape
      (None, 2)
    """
    require(min(hidden, default=1) >= 1, f"hidden = {list(hidden)} has a layer without units")
    return _dense_network("mlp", sample_shape, hidden, classes, seed)


def _dense_network(
    name: str, sample_shape: tuple[int, ...], hidden: Sequence[int], classes: int, seed: int
) -> keras.Model:
    from keras import Input, Model

    samples = Input(sample_shape, name="images" if len(sample_shape) == 3 else "features")
    x = _as_vectors(samples) if len(sample_shape) == 3 else samples
    for number, units in enumerate(hidden, 1):
        x = dense(x, units, "relu", f"dense{number}", seed)
    return Model(samples, logits(x, classes, seed), name=name)


def _as_vectors(images: KerasTensor) -> KerasTensor:
    from keras import layers

    x = layers.Rescaling(1 / 255, name="rescale")(images)
    return layers.Flatten(name="flatten")(x)

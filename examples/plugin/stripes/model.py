"""A network for stripes: one convolution, its maximum over all pixels, one dense layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.models.blocks import cited, he_uniform

if TYPE_CHECKING:
    import keras


@cited("tffl's example of a plug-in")
def stripes_cnn(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """One convolution and one dense layer.

    Args:
      image_shape: Height, width, channels.
      classes: Number of logits.
      seed: Of the initial weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.
    """
    from keras import Input, Model, layers

    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(images)
    x = layers.Conv2D(
        8, 5, activation="relu", kernel_initializer=he_uniform(seed, "conv"), name="conv"
    )(x)
    x = layers.GlobalMaxPooling2D(name="maximum")(x)
    logits = layers.Dense(
        classes, kernel_initializer=he_uniform(seed, "logits"), dtype="float32", name="logits"
    )(x)
    return Model(images, logits, name="stripes_cnn")

"""The small VGG-like network in which the bias anomaly was found.

    conv 3×3, 32 – conv 3×3, 32 – max-pool 2 – dense 128 – dense classes

Anomaly Localization in Model Gradients Under Backdoor Attacks Against Federated Learning
    Zeki Bilgin. 2021. Section 5.3 and Figure 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.models.blocks import check_size, cited, dense, he_uniform, logits

if TYPE_CHECKING:
    import keras


@cited("Bilgin, Anomaly Localization in Model Gradients Under Backdoor Attacks Against FL, 2021")
def cnn(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """Two convolutions, one pooling, two dense layers.

    Args:
      image_shape: Height, width, channels; images from 4 × 4 to 256 × 256.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> cnn((28, 28, 1), 10).count_params()
      813802
    """
    from keras import Input, Model, layers

    # Beyond 256 the dense layer alone would hold more than 67 million weights.
    check_size("cnn", image_shape, smallest=4, largest=256)

    def conv(name: str) -> layers.Layer:
        weights = he_uniform(seed, name)
        return layers.Conv2D(
            32, 3, padding="same", activation="relu", kernel_initializer=weights, name=name
        )

    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = conv("conv1")(x)
    x = conv("conv2")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 128, "relu", "dense", seed)
    return Model(images, logits(x, classes, seed), name="cnn")

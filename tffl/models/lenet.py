"""LeNet-5 in its usual modern form.

    conv 5×5, 6 – max-pool 2 – conv 5×5, 16 – max-pool 2 – dense 120 – dense 84 – dense classes

Gradient-Based Learning Applied to Document Recognition
    Yann LeCun, Léon Bottou, Yoshua Bengio, Patrick Haffner. Proceedings of the IEEE, 1998.

Deviations: ReLU instead of scaled tanh, max-pooling instead of trained subsampling, full
connections in the second convolution, logits instead of radial basis functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.models.blocks import check_size, cited, dense, he_uniform, logits

if TYPE_CHECKING:
    import keras


@cited("LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998")
def lenet5(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """LeNet-5 with ReLU and max-pooling; 61,706 weights on 28 × 28 or 32 × 32 gray digits.

    Args:
      image_shape: Height, width, channels; images from 12 × 12 to 512 × 512. The network was
        designed for 32 × 32; smaller images are padded by 2 in the first convolution, as MNIST's
        28 × 28 images were.
      classes: Number of logits.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> lenet5((28, 28, 1), 10).count_params()
      61706
    """
    from keras import Input, Model, layers

    check_size("lenet5", image_shape, smallest=12)
    padding = "valid" if min(image_shape[:2]) >= 32 else "same"

    def conv(filters: int, padding: str, name: str) -> layers.Layer:
        weights = he_uniform(seed, name)
        return layers.Conv2D(
            filters, 5, padding=padding, activation="relu", kernel_initializer=weights, name=name
        )

    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    x = conv(6, padding, "conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = conv(16, "valid", "conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 120, "relu", "dense1", seed)
    x = dense(x, 84, "relu", "dense2", seed)
    return Model(images, logits(x, classes, seed), name="lenet5")

"""The networks of the GAN auditor: the generator, and the global model, also the discriminator.

    conv 4×4/2, 16 – conv 3×3, 16 – conv 4×4/2, 32 – conv 3×3, 32 – conv 4×4/2, 64 – conv 3×3, 64
    – dense C + 1
    z – deconv 4×4, 4w – deconv 4×4/2, 2w – deconv 4×4/2, w – deconv 4×4/2, channels – tanh

Detecting and mitigating poisoning attacks in federated learning using generative adversarial
networks
    Ying Zhao, Junjun Chen, Jiale Zhang, Di Wu, Michael Blumenstein, Shui Yu. Concurrency and
    Computation: Practice and Experience. Section 4.3 and Figure 4.

The paper specifies 32 × 32 images; six convolutions of 4 × 4 or 3 × 3 with BatchNorm and Dropout,
and 11 outputs for 10 classes, the last of them "fake"; a generator with 100 inputs and four
deconvolutions of 4 × 4. It does not specify the filters, the strides, where Dropout is, or the
activations. tffl follows DCGAN (Radford, Metz, Chintala, ICLR 2016): each 4 × 4 convolution halves
the image and the 3 × 3 after it keeps its size; BatchNorm and a leaky ReLU with slope 0.2 follow
each; Dropout of 0.25 follows each pair; there is no pooling and no hidden dense layer. Filters are
few, so that a GAN can be trained every round on two cores. The generator has BatchNorm and ReLU
after all layers but the last, whose tanh is scaled to 0 … 255, and DCGAN's initial weights,
N(0, 0.02²): with He-uniform weights, the tanh saturates from the start, and the generator never
makes anything but noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.core import seeds
from tffl.models.blocks import check_size, cited, convolve, logits, normalize

if TYPE_CHECKING:
    import keras

FILTERS = (16, 32, 64)
"""Filters of the three pairs of convolutions."""

DROPOUT = 0.25
LEAKY_SLOPE = 0.2
"""Slope of the leaky ReLU below 0."""

LATENT_SIZE = 100
"""Length of the generator's input vector."""

INITIAL_STDDEV = 0.02
"""Standard deviation of the generator's initial weights."""

LARGEST_IMAGE = 32
"""Largest height and width of generated images."""


@cited(
    "Zhao et al., Detecting and Mitigating Poisoning Attacks in FL Using GANs, Concurrency and "
    "Computation: Practice and Experience"
)
def pdgan_cnn(image_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """Six convolutions and one more output than classes, "fake"; also the auditor's discriminator.

    No client has a label of the last output, so that training lowers it. Evaluation takes the
    largest of all outputs and counts "fake" as an error.

    Dropout draws from seed generators, which are variables of the model but not weights. In a
    client's compiled training, they start from a seed drawn for (experiment seed, round, client)
    and are part of the loop's state, so that a client's masks depend neither on its device nor on
    the clients trained before it. The masks are TensorFlow's stateless random numbers, which are
    the same on every CPU; on a GPU they may differ.

    Args:
      image_shape: Height, width, channels; designed for 32 × 32, takes 8 × 8 to 256 × 256.
      classes: Number of real classes; there is one more output.
      seed: Seed of the He-uniform weights.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes + 1]`.

    Raises:
      UsageError: The images are too small or too large.

    Example:
      >>> pdgan_cnn((28, 28, 1), 10).count_params()
      101771
    """
    from keras import Input, Model, layers

    check_size("pdgan-cnn", image_shape, smallest=8, largest=256)
    images = Input(image_shape, name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(images)
    for pair, filters in enumerate(FILTERS, start=1):
        for name, size, stride in ((f"down{pair}", 4, 2), (f"same{pair}", 3, 1)):
            x = convolve(x, filters, size, stride, name, seed)
            x = layers.LeakyReLU(LEAKY_SLOPE, name=f"{name}_relu")(x)
        mask = seeds.integer(seed, f"dropout{pair}")
        x = layers.Dropout(DROPOUT, seed=mask, name=f"dropout{pair}")(x)
    x = layers.Flatten(name="flatten")(x)
    return Model(images, logits(x, classes + 1, seed), name="pdgan-cnn")


def generator(
    image_shape: tuple[int, int, int], *, latent: int = LATENT_SIZE, width: int = 32, seed: int = 0
) -> keras.Model:
    """Builds the generator of the GAN auditor.

    It makes images of 4·2^k × 4·2^k pixels, k up to 3, and crops them to the requested size; below
    32 × 32, the last deconvolutions keep the size.

    Args:
      image_shape: Height and width, up to 32 × 32, and channels.
      latent: Length of the input vector.
      width: Filters of the second-to-last layer; the two before it have two and four times as many.
      seed: Seed of the weights.

    Returns:
      A model from float32 `[batch, latent]` to float32 images in 0 … 255.

    Raises:
      UsageError: The images are too small or too large.
    """
    from keras import Input, Model, initializers, layers

    check_size("the generator", image_shape, smallest=8, largest=LARGEST_IMAGE)
    height, columns, channels = image_shape
    doublings = next(k for k in range(4) if 4 * 2**k >= max(height, columns))

    def deconvolve(x: keras.KerasTensor, filters: int, number: int) -> keras.KerasTensor:
        stride = 2 if 2 <= number <= doublings + 1 else 1
        draw = seeds.integer(seed, f"weights of deconv{number}")
        return layers.Conv2DTranspose(
            filters,
            4,
            strides=stride,
            padding="valid" if number == 1 else "same",
            use_bias=number == 4,
            kernel_initializer=initializers.RandomNormal(stddev=INITIAL_STDDEV, seed=draw),
            dtype="float32",
            name=f"deconv{number}",
        )(x)

    z = Input((latent,), name="z", dtype="float32")
    x = layers.Reshape((1, 1, latent), name="pixel")(z)
    for number, filters in enumerate((4 * width, 2 * width, width), start=1):
        x = normalize(deconvolve(x, filters, number), f"deconv{number}_bn")
        x = layers.ReLU(name=f"deconv{number}_relu")(x)
    x = layers.Activation("tanh", name="tanh")(deconvolve(x, channels, 4))
    x = layers.Rescaling(127.5, offset=127.5, name="gray_levels")(x)
    side = 4 * 2**doublings
    top, left = (side - height) // 2, (side - columns) // 2
    border = ((top, side - height - top), (left, side - columns - left))
    if (height, columns) != (side, side):
        x = layers.Cropping2D(border, name="crop")(x)
    return Model(z, x, name="generator")

"""Builds a model from a seed; those that are not tffl's own are checked, and end in logits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import ModelConfig
from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.core.function_options import checked_options, takes_seed
from tffl.core.pixels import BYTES, PixelRange
from tffl.models import models
from tffl.models.head import as_logits, final_activation
from tffl.models.layers import resized, set_weights
from tffl.models.own import KEEPS_WEIGHTS, KEYS, find_model
from tffl.models.validation import check_classifier, check_fits, check_names, samples_of

if TYPE_CHECKING:
    import keras


def build_network(
    model: ModelConfig | str,
    image_shape: tuple[int, ...],
    classes: int,
    seed: int = 0,
    pixels: PixelRange = BYTES,
    say: Callable[[str], Any] | None = None,
) -> keras.Model:
    """Builds a model with its initial weights.

    Args:
      model: Its name in `tffl list models`, a file, or a function; or a config with options.
      image_shape: Height, width, channels; or the number of features.
      classes: Number of classes.
      seed: Seed of the initial weights. If the function of a plug-in has no argument `seed`, Keras'
        initializers draw from this seed all the same.
      pixels: The values of the darkest pixel and the brightest, which tffl's own models scale.
      say: Hears in one line what was changed about the model: a softmax was taken off.

    Returns:
      A model from float32 images in that range, or float32 feature vectors, to float32 logits
      `[batch, classes]`. There may be one more logit, for the fake class of the GAN auditor.

    Raises:
      UsageError: The model is unknown, cannot take images of this size, or is not a classifier as
        described above.
    """
    config = ModelConfig(name=model) if isinstance(model, str) else model
    name, build = config.name, find_model(config)
    options = checked_options(build, config.options, "model", name, KEYS)
    if name in models.builtin:
        return _for_pixels(build(image_shape, classes, seed=seed, **options), pixels)
    what = f"model {name}"
    seeded = {"seed": seed} if takes_seed(build) else {}
    try:
        with _global_seed(seed):
            network = build(image_shape, classes, **seeded, **options)
    except (TfflError, MemoryError):
        raise
    except Exception as error:  # plug-in code may raise anything
        raise UsageError(
            f"{what} cannot be built for {samples_of(image_shape)} of {image_shape} and {classes} "
            f"classes: {first_line(error)}"
        ) from error
    check_classifier(network, what)
    check_names(network, what)
    # A function that was told the number of classes may add the auditor's fake class.
    more = 1 if getattr(build, KEEPS_WEIGHTS, False) else 2
    check_fits(network, what, image_shape, classes, range(classes, classes + more))
    require(bool(network.trainable_variables), f"{what} has no weights to train")
    return _ending_in_logits(_of_shape(network, image_shape, what), what, say)


def random_network(
    model: ModelConfig, image_shape: tuple[int, ...], classes: int, seed: int
) -> keras.Model:
    """Builds a model with random weights, also where a file or an object holds others.

    Args:
      model: Names it.
      image_shape: As `build_network` takes it.
      classes: As `build_network` takes it.
      seed: Seed of the weights.
    """
    network = build_network(model, image_shape, classes, seed)
    if not getattr(find_model(model), KEEPS_WEIGHTS, False):
        return network
    import keras

    with _global_seed(seed):
        return keras.models.clone_model(network)


def check_trainable(model: keras.Model, name: str, trace: Callable[[], Any]) -> None:
    """Raises `UsageError` if the model of a plug-in cannot be trained.

    Args:
      model: What `build_network` returned for the name.
      name: The name in `tffl list models`.
      trace: Traces the training function.
    """
    if name in models.builtin:
        return
    try:
        trace()
    except Exception as error:  # layers of plug-ins may raise anything
        raise UsageError(f"model {name} cannot be trained: {first_line(error)}") from error


def _ending_in_logits(
    model: keras.Model, what: str, say: Callable[[str], Any] | None
) -> keras.Model:
    """Returns a model without the softmax that it ends in; refuses other activations."""
    try:
        end = final_activation(model)
    except Exception as error:  # layers of plug-ins may raise anything
        raise UsageError(f"{what} fails on a random input: {first_line(error)}") from error
    if not end:
        return model
    require(
        end == "softmax",
        f"{what} ends in {end}, but the loss takes logits: leave out {end}; the predicted "
        "classes stay the same",
    )
    try:
        logits = as_logits(model)
    except UsageError:
        raise UsageError(
            f"{what} ends in softmax, which cannot be taken off: leave it out, so that the model "
            "ends in logits; the predicted classes stay the same"
        ) from None
    if say is not None:
        say(
            f"{what} ends in softmax: it is taken off, as the loss takes logits; the predicted "
            "classes stay the same, and the exported model returns logits"
        )
    return logits


def _of_shape(model: keras.Model, shape: tuple[int, ...], what: str) -> keras.Model:
    """Returns a model for samples of one shape, of one that takes images of any size."""
    if None not in model.inputs[0].shape[1:]:
        return model
    import keras

    try:
        fixed = resized(model, keras.Input(shape, name=model.inputs[0].name))
        set_weights(fixed, model.get_weights())
    except Exception as error:  # layers of plug-ins may raise anything
        raise UsageError(f"{what} cannot take images of {shape}: {first_line(error)}") from error
    return fixed


def _for_pixels(model: keras.Model, pixels: PixelRange) -> keras.Model:
    """Lets a model of tffl's own, which is made for bytes, see the same in another range."""
    if pixels == BYTES:
        return model
    low, high = pixels
    rescale = model.get_layer("rescale")
    rescale.scale *= 255 / (high - low)
    rescale.offset -= rescale.scale * low
    return model


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seeds the global generators that Keras' initializers draw from, and restores them."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002

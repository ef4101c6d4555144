"""Builds a registered model from a seed, and checks models of plug-ins."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.core.pixels import BYTES, PixelRange
from tffl.models import models
from tffl.models.head import final_activation
from tffl.models.validation import check_classifier, check_fits, samples_of

if TYPE_CHECKING:
    import keras


def build_network(
    name: str,
    image_shape: tuple[int, ...],
    classes: int,
    seed: int = 0,
    pixels: PixelRange = BYTES,
) -> keras.Model:
    """Builds a model with its initial weights.

    Args:
      name: The name in `tffl list models`.
      image_shape: Height, width, channels; or the number of features.
      classes: Number of classes.
      seed: Seed of the initial weights. If the function of a plug-in has no argument `seed`, Keras'
        initializers draw from this seed all the same.
      pixels: The values of the darkest pixel and the brightest, which tffl's own models scale.

    Returns:
      A model from float32 images in that range, or float32 feature vectors, to float32 logits
      `[batch, classes]`. There may be one more logit, for the fake class of the GAN auditor.

    Raises:
      UsageError: The model is unknown, cannot take images of this size, or is not a classifier as
        described above.
    """
    build = models[name]
    if name in models.builtin:
        return _for_pixels(build(image_shape, classes, seed=seed), pixels)
    what = f"model {name}"
    try:
        with _global_seed(seed):
            model = build(image_shape, classes, **({"seed": seed} if _takes_seed(build) else {}))
    except (TfflError, MemoryError):
        raise
    except Exception as error:  # plug-in code may raise anything
        raise UsageError(
            f"{what} cannot be built for {samples_of(image_shape)} of {image_shape} and {classes} "
            f"classes: {first_line(error)}"
        ) from error
    check_classifier(model, what)
    check_fits(model, what, image_shape, classes, range(classes, classes + 2))
    require(bool(model.trainable_variables), f"{what} has no weights to train")
    return model


def check_trainable(model: keras.Model, name: str, trace: Callable[[], Any]) -> None:
    """Raises `UsageError` if the model of a plug-in cannot be trained, or does not end in logits.

    Args:
      model: What `build_network` returned for the name.
      name: The name in `tffl list models`.
      trace: Traces the training function.
    """
    if name in models.builtin:
        return
    try:
        trace()
        end = final_activation(model)
    except Exception as error:  # layers of plug-ins may raise anything
        raise UsageError(f"model {name} cannot be trained: {first_line(error)}") from error
    require(
        not end,
        f"model {name} ends in {end}, but the loss takes logits: leave out {end}; the predicted "
        "classes stay the same",
    )


def _for_pixels(model: keras.Model, pixels: PixelRange) -> keras.Model:
    """Lets a model of tffl's own, which is made for bytes, see the same in another range."""
    if pixels == BYTES:
        return model
    low, high = pixels
    rescale = model.get_layer("rescale")
    rescale.scale *= 255 / (high - low)
    rescale.offset -= rescale.scale * low
    return model


def _takes_seed(build: Callable[..., keras.Model]) -> bool:
    try:
        parameters = inspect.signature(build).parameters.values()
    except ValueError:  # the function is not written in Python
        return False
    return any(each.name == "seed" or each.kind is each.VAR_KEYWORD for each in parameters)


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

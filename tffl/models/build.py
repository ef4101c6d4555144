"""The model that a config names, whoever has written it: built from a seed, and checked."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.models import models
from tffl.models.head import final_activation
from tffl.models.validation import check_classifier, check_fits

if TYPE_CHECKING:
    import keras


def build_network(
    name: str, image_shape: tuple[int, int, int], classes: int, seed: int = 0
) -> keras.Model:
    """Builds a model with its first weights.

    Args:
      name: As in `tffl list models`.
      image_shape: Height, width, channels.
      classes: Number of classes.
      seed: Of the first weights. A function of others that has no argument `seed` gets its weights
        from it too, if its initializers are Keras' own.

    Returns:
      A model from float32 images in 0 … 255 to float32 logits `[batch, classes]`; there may be one
      more, for what the GAN auditor generates.

    Raises:
      UsageError: The model is unknown, too deep for the images, or not what it should be.
    """
    build = models[name]
    if name in models.builtin:
        return build(image_shape, classes, seed=seed)
    what = f"model {name}"
    try:
        with _drawing_from(seed):
            model = build(image_shape, classes, **({"seed": seed} if _takes_seed(build) else {}))
    except (TfflError, MemoryError):
        raise
    except Exception as error:  # of code that others have written
        raise UsageError(
            f"{what} cannot be built for images of {image_shape} and {classes} classes: "
            f"{first_line(error)}"
        ) from error
    check_classifier(model, what)
    check_fits(model, what, image_shape, classes, range(classes, classes + 2))
    require(bool(model.trainable_variables), f"{what} has no weights to train")
    return model


def check_trainable(model: keras.Model, name: str, trace: Callable[[], Any]) -> None:
    """Raises `UsageError` if a model of others cannot be trained, or would be trained wrongly.

    Args:
      model: What `build_network` returned for the name.
      name: As in `tffl list models`.
      trace: Traces the training function.
    """
    if name in models.builtin:
        return
    try:
        trace()
        end = final_activation(model)
    except Exception as error:  # of layers that others have written
        raise UsageError(f"model {name} cannot be trained: {first_line(error)}") from error
    require(
        not end,
        f"model {name} ends in {end}, and the loss takes logits: leave {end} out, the largest "
        "output stays the same",
    )


def _takes_seed(build: Callable[..., keras.Model]) -> bool:
    try:
        parameters = inspect.signature(build).parameters.values()
    except ValueError:  # of a function that is not Python's
        return False
    return any(each.name == "seed" or each.kind is each.VAR_KEYWORD for each in parameters)


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Seeds what initializers without a seed draw from, and leaves it as it was."""
    kept, array_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(array_state)  # noqa: NPY002

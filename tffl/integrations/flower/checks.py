"""Checks of a strategy's defense, options, model and images before the first round."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.pixels import PixelRange, pixel_range
from tffl.core.updates import LARGEST_CLAIM
from tffl.core.weighting import Weighting
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA, RootData, Samples
from tffl.defenses import Defense
from tffl.models.layers import set_weights

if TYPE_CHECKING:
    import keras

log = logging.getLogger("flwr")


def check_defense(
    name: str, defense: Defense, samples: Samples | None, root: RootData | None
) -> None:
    """Checks that a defense can work in a Flower server with the given data.

    Raises:
      UsageError: It cannot.
    """
    require(
        defense.models == 1,
        f"{name} keeps {defense.models} global models, and a Flower server has one",
    )
    declared = set(defense.declared_knowledge())
    require(
        root is not None or ROOT_DATA not in declared,
        f"{name} compares clients with an update of the server's own: give root",
    )
    require(
        samples is not None or not {PROBE_DATA, AUXILIARY_DATA} & declared,
        f"{name} tests clients' models on images of the server's own: give samples",
    )


def check_options(
    clients: int | None, max_samples: int, learning_rate: float, weighting: Weighting
) -> None:
    """Checks the options of a strategy.

    Raises:
      UsageError: An option is out of range.
    """
    require(clients is None or clients >= 1, f"clients = {clients} must be at least 1")
    require(
        1 <= max_samples <= LARGEST_CLAIM,
        f"max_samples = {max_samples} is not between 1 and {LARGEST_CLAIM}",
    )
    require(
        math.isfinite(learning_rate) and learning_rate > 0,
        f"learning_rate = {learning_rate} must be above 0",
    )
    require(weighting in get_args(Weighting), f"weighting {weighting!r} does not exist")


def model_for_images(model: keras.Model, samples: Samples, root: RootData | None) -> keras.Model:
    """Returns the model that a defense applies to images: checked, and ending in logits.

    Args:
      model: The model that is trained.
      samples: The server's labeled images.
      root: The server's trusted training samples, if any.

    Raises:
      UsageError: The model, the samples or the root samples do not match.
    """
    from tffl.core.keras_settings import settle
    from tffl.explain.samples import check_samples
    from tffl.models.head import as_logits, final_activation
    from tffl.models.validation import check_classifier

    settle()
    check_classifier(model, f"the model {model.name}")
    check_samples(model, f"the model {model.name}", samples, root)
    if end := final_activation(model):
        log.warning("tffl: %s ends in %s: defenses see what goes into it", model.name, end)
    return as_logits(model)


def check_images(
    model: keras.Model,
    weights: Sequence[np.ndarray],
    samples: Samples,
    pixels: PixelRange | None,
    seed: int,
) -> None:
    """Tests the global model of the first round on the samples.

    Args:
      model: The model that defenses apply to images; its own weights are restored.
      weights: The weights of the global model, one array for each variable.
      samples: The server's labeled images.
      pixels: The model's values for the darkest and the brightest pixel; 0 and 255 if None, or the
        range of float samples. With a given range, a mismatch is only a warning.
      seed: The seed for choosing samples.

    Raises:
      UsageError: The model expects other pixels, outputs or classes, and no range is given.
    """
    from tffl.explain.suitability import check_model, predictor

    # An untrained model is no better than chance, which is not a reason for a warning here.
    before = model.get_weights()
    try:
        set_weights(model, weights)
        check_model(predictor(model), samples, pixels or pixel_range(samples.images), seed)
    except UsageError as error:
        if pixels is None:
            raise
        log.warning("tffl: %s", error)
    finally:
        set_weights(model, before)

"""What a scan looks at clients' models with: the server's images, and a model that takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tffl.core import seeds
from tffl.core.errors import UsageError
from tffl.core.pixels import PixelRange, pixel_range
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, Samples
from tffl.defenses.base import Defense
from tffl.untrusted.global_variables import GlobalVariables

if TYPE_CHECKING:
    import keras

    from tffl.explain.maps import Explainer

SAMPLES = 2000
"""The largest number of images that defenses get."""

IMAGES = {PROBE_DATA, AUXILIARY_DATA}
"""Needs of defenses that use the server's images."""

OTHERS = "defenses that judge updates alone, such as update-consensus, judge any model"


@dataclass(frozen=True)
class ImageTests:
    """What defenses evaluate clients' models on images with.

    Attributes:
      model: The global model, ending in logits.
      samples: Labeled images; empty if there are none.
      explainer: Makes class activation maps of clients' models.
      warnings: Why the tests may say little.
    """

    model: keras.Model
    samples: Samples
    explainer: Explainer
    warnings: tuple[str, ...]


def uses_images(defense: Defense) -> bool:
    """Returns whether a defense evaluates clients' models on images, made or given."""
    return defense.uses_model or bool(IMAGES & {*defense.declared_knowledge()})


def prepare_tests(
    model: keras.Model,
    defenses: Iterable[Defense],
    samples: Samples | None,
    seed: int,
    pixels: PixelRange | None,
) -> ImageTests:
    """Checks images and model, and prepares them for defenses.

    Args:
      model: One that `check_image_model` lets pass.
      defenses: Those of the scan.
      samples: Labeled images, if there are any.
      seed: Decides which of them are used.
      pixels: As `Scanner` takes it.

    Raises:
      UsageError: The images do not suit the model.
    """
    from tffl.explain.maps import Explainer
    from tffl.explain.samples import check_samples
    from tffl.models.head import as_logits, final_activation

    if samples is not None:
        check_samples(model, "the global model", samples, None)
    needs = {word for each in defenses for word in each.declared_knowledge()}
    end = final_activation(model) if PROBE_DATA in needs else ""
    logits = as_logits(model) if end else model
    shown = samples or _no_samples(model)
    explainer = Explainer(logits, pixels or pixel_range(shown.images))
    shown = _limited(shown, seed)
    warnings = [f"the global model ends in {end}: defenses see what goes into it"] if end else []
    if needs & IMAGES:
        warnings += _check_suitability(logits, shown, explainer.pixels, seed, pixels is not None)
    return ImageTests(logits, shown, explainer, tuple(warnings))


def _check_suitability(
    model: keras.Model, samples: Samples, pixels: PixelRange, seed: int, given: bool
) -> list[str]:
    """Checks that a model suits images; returns a warning if that is not an error."""
    from tffl.explain.suitability import check_model, predictor

    try:
        found = check_model(predictor(model), samples, pixels, seed)
    except UsageError as error:
        if not given:
            raise
        found = str(error)
    return [found] if found else []


def check_image_model(model: keras.Model | GlobalVariables, who: str) -> keras.Model:
    """Returns a global model that defenses can evaluate on images.

    Args:
      model: The global model.
      who: What looks at images, for the message.

    Raises:
      UsageError: It is another model, or not a Keras model.
    """
    from tffl.models.validation import check_classifier

    if isinstance(model, GlobalVariables):
        raise UsageError(
            f"{who} looks at images with the global model, and of a SavedModel only the variables "
            f"are read: give its .keras file; {OTHERS}"
        )
    try:
        check_classifier(model, "the global model")
    except UsageError as error:
        raise UsageError(f"{who} looks at images, and {error}; {OTHERS}") from None
    return model


def _limited(samples: Samples, seed: int) -> Samples:
    draw = seeds.generator(seed, "samples").permutation(len(samples.labels))[:SAMPLES]
    rows = np.sort(draw)
    return replace(samples, images=samples.images[rows], labels=samples.labels[rows])


def _no_samples(model: keras.Model) -> Samples:
    """Returns an empty set of images with as many classes as the model has outputs."""
    shape = [side or 1 for side in model.input_shape[1:]]
    nothing = np.zeros((0, *shape), dtype=np.uint8)
    return Samples(nothing, np.zeros(0, dtype=np.int32), int(model.output_shape[-1]))

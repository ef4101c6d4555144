"""Whether images suit a global model, which should classify them itself.

Tests of clients' models with images assume a range of pixels, logits, and an order of classes.
Where the global model was made with others, all clients' models do equally badly, so that a
poisoned one does not stand out. The global model's own outputs show that before anyone is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tffl.core.cross_entropy import mean_cross_entropy
from tffl.core.errors import UsageError
from tffl.core.pixels import RANGES, PixelRange, in_range, on_byte_scale
from tffl.data.samples import Samples
from tffl.explain.probes import draw

if TYPE_CHECKING:
    import keras

IMAGES, PER_CLASS = 200, 10
"""Images to evaluate a model on: this many, or this many of each class if that is more."""

BATCH = 100
"""Images that a model sees at once."""

REORDERED = 0.6
"""The accuracy from which on another order of classes is believed."""

Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Images float32 `[m, …]` in a model's range of pixels → outputs `[m, classes]`."""


def check_model(predict: Predict, samples: Samples, pixels: PixelRange, seed: int) -> str:
    """Returns a warning if the images say little about a model; empty if all is well.

    Args:
      predict: The global model, ending in logits: see `tffl.models.head`.
      samples: The server's images; without any, all is well.
      pixels: The range that the model is thought to take; of float images, the one they are in.
      seed: Decides which images.

    Raises:
      UsageError: It is seen what is wrong: another range, or another order of classes.
    """
    count = min(max(IMAGES, PER_CLASS * samples.classes), len(samples.labels))
    if not count:
        return ""
    probes = draw(samples, count, seed)
    images, labels = on_byte_scale(probes.images, pixels), probes.classes
    outputs = predict(in_range(images, pixels))
    accuracy = _accuracy(outputs, labels)
    _check_order(outputs, labels, accuracy)  # first: confident mistakes are milder in other ranges
    _check_range(predict, images, labels, outputs, pixels)
    chance = np.bincount(labels).max() / count
    if accuracy > chance + 3 * math.sqrt(chance * (1 - chance) / count):
        return ""
    return (
        f"the global model knows {accuracy:.1%} of {count} test images, no more than chance: tests "
        "with images say little of models that start from it (is it untrained, or made for another "
        "dataset, or for another order of classes?)"
    )


def predictor(model: keras.Model) -> Predict:
    """Returns the model as a function of batches, so that many images fit into memory."""

    def predict(images: np.ndarray) -> np.ndarray:
        parts = np.split(images, range(BATCH, len(images), BATCH))
        return np.concatenate([np.asarray(model(part, training=False)) for part in parts])

    return predict


def _check_range(
    predict: Predict,
    images: np.ndarray,
    labels: np.ndarray,
    outputs: np.ndarray,
    pixels: PixelRange,
) -> None:
    """Raises `UsageError` if the model does far better with pixels in another range."""
    accuracy, loss = _accuracy(outputs, labels), _loss(outputs, labels)
    noise = math.sqrt(1 / (4 * len(labels)))
    for other in RANGES:
        tried = predict(in_range(images, other))
        better = _loss(tried, labels) < loss / 2 and _accuracy(tried, labels) > accuracy - noise
        if other != pixels and better:
            raise UsageError(
                f"the global model seems to take pixels of {_words(other)}, not {_words(pixels)}: "
                f"its loss on {len(labels)} test images is {_loss(tried, labels):.3g} so, and "
                f"{loss:.3g} as they are; for uint8 images, give that range as pixels "
                f"({other[0]:g},{other[1]:g}); scale float images so, or build the scaling into "
                "the model"
            )


def _check_order(outputs: np.ndarray, labels: np.ndarray, accuracy: float) -> None:
    """Raises `UsageError` if the model knows the images under other labels."""
    from scipy.optimize import linear_sum_assignment

    found = np.zeros((outputs.shape[1], outputs.shape[1]))
    np.add.at(found, (labels, outputs.argmax(axis=1)), 1)
    rows, columns = linear_sum_assignment(found, maximize=True)
    best = found[rows, columns].sum() / len(labels)
    # An untrained model may tell few classes apart by chance, but it is not sure of them.
    sure = _loss(outputs, columns[labels]) < math.log(outputs.shape[1]) / 2
    if best < REORDERED or accuracy > best / 2 or not sure:
        return
    moved = next(int(r) for r in np.unique(labels) if columns[r] != r)
    raise UsageError(
        f"the global model has its classes in another order than the dataset: it knows "
        f"{accuracy:.1%} of {len(labels)} test images, and {best:.1%} in its own order, where "
        f"class {moved} is its {columns[moved]}: choose a dataset with the labels that clients "
        "train on, or number the classes as the model does"
    )


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    sound = np.isfinite(outputs).all(axis=1)
    return float((sound & (outputs.argmax(axis=1) == labels)).mean())


def _loss(outputs: np.ndarray, labels: np.ndarray) -> float:
    loss = float(mean_cross_entropy(outputs[None], labels)[0])
    return loss if math.isfinite(loss) else math.inf


def _words(pixels: PixelRange) -> str:
    return f"{pixels[0]:g}…{pixels[1]:g}".replace("-", "−")

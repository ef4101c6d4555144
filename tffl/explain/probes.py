"""Which images the server evaluates clients' models on."""

from __future__ import annotations

import numpy as np

from tffl.core import seeds
from tffl.core.pixels import PixelRange, as_bytes
from tffl.data.resize import resize
from tffl.data.samples import Samples
from tffl.explain.maps import PREDICTED, Probes

PICTURED = 4
"""How many probes a run keeps, so that its heat maps can be drawn over them."""


def draw(
    samples: Samples,
    count: int,
    seed: int,
    *,
    size: int | None = None,
    rule: str = "true",
    fixed: int = 0,
    round: int = 0,
) -> Probes:
    """Draws probe images, as equally many of each class as possible.

    Classes come in turn, in a random order, so that any consecutive group of probes is as balanced
    as it can be. Attackers who know the code and the data but not the seed do not know the probes.

    Args:
      samples: What the server has; all probes differ until a class runs out, which is skipped.
      count: Number of probes, at most the number of samples.
      seed: The experiment's.
      size: Height and width to resize to; the samples' own if absent.
      rule: The class to explain: the image's `true` label, what each model has `predicted`, or a
        `fixed` class for all.
      fixed: That class.
      round: Draws other probes for every value.
    """
    generator = seeds.generator(seed, "probes", round)
    order = generator.permutation(len(samples.labels))
    turn = np.empty(len(order), dtype=np.int64)
    for label in np.unique(samples.labels):
        mine = samples.labels[order] == label
        turn[mine] = np.arange(mine.sum())
    rank = generator.permutation(samples.classes)[samples.labels[order]]
    chosen = order[np.lexsort((rank, turn))[:count]]
    images = samples.images[chosen]
    classes = {
        "true": samples.labels[chosen].astype(np.int32),
        "predicted": np.full(count, PREDICTED, np.int32),
        "fixed": np.full(count, fixed, np.int32),
    }
    if size is not None:
        images = resize(images, size, images.dtype.type)
    return Probes(images, classes[rule])


def drawn_images(probes: Probes, pixels: PixelRange) -> np.ndarray:
    """Returns the first probes as they are drawn, uint8 `[q, height, width, channels]`.

    Args:
      probes: Those that maps are made of.
      pixels: The darkest and the brightest pixel of float images.
    """
    return as_bytes(probes.images[:PICTURED], pixels)

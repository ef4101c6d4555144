"""The samples that a server owns in an experiment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tffl.core import seeds
from tffl.data.federation import Federation
from tffl.data.pixels import as_bytes
from tffl.data.samples import RootData, Samples

SAMPLES = 2000
"""The most images that the server looks at clients' models with; it need not keep more."""


def samples_of(federation: Federation, seed: int) -> Samples:
    """Returns what a defense may look at models with, at most `SAMPLES` images."""
    data, classes = federation.server, federation.dataset.classes
    if data is not None:
        pool, images, labels = data.indices, federation.images, data.labels
    else:
        images, labels = federation.dataset.test_images, federation.dataset.test_labels
        pool = np.arange(len(labels))
    generator = seeds.generator(seed, "samples")
    rows = np.sort(generator.permutation(len(pool))[:SAMPLES])
    shown = images[pool[rows]]
    if federation.dataset.is_images:
        shown = as_bytes(shown, federation.dataset.pixels)
    return Samples(shown, labels[rows], classes, federation.dataset.class_names)


def root_of(
    federation: Federation, train: Callable[[np.ndarray, int], np.ndarray]
) -> RootData | None:
    """Returns what a defense gets of the server's samples; None if it has none.

    Args:
      federation: With the server's data, if there is any.
      train: (start float32 `[d]`, round) → the update that training on them yields.
    """
    if federation.server is None:
        return None
    return RootData(federation.images[federation.server.indices], federation.server.labels, train)

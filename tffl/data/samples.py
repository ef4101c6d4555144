"""Data that a server may own, and the names by which a defense requests them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROOT_DATA = "root data"
"""Need of a defense that uses trusted samples of the server; see `RootData`."""


@dataclass(frozen=True)
class RootData:
    """The server's own, trusted samples.

    Attributes:
      images: uint8 `[m, height, width, channels]`, `m >= 1`.
      labels: int32 `[m]`.
      train: Function (start float32 `[d]`, round) → update float32 `[d]`, which trains on the
        samples as a client would in that round.
    """

    images: np.ndarray
    labels: np.ndarray
    train: Callable[[np.ndarray, int], np.ndarray]


PROBE_DATA = "probe images"
"""Need of a defense that runs clients' models on labeled images; see `Samples`."""

AUXILIARY_DATA = "auxiliary images"
"""Need of a defense that learns from the server's images of some classes."""


@dataclass(frozen=True)
class Samples:
    """Labeled images.

    Attributes:
      images: uint8 `[m, height, width, channels]`; or float32, which models get as they are.
      labels: int32 `[m]`.
      classes: Number of classes.
      names: Names of the classes; empty if they are unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    names: tuple[str, ...] = ()

"""What a server may own beyond the updates, and the words by which a defense asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROOT_DATA = "root data"
"""What a defense needs if the server must have samples of its own; see `RootData`."""


@dataclass(frozen=True)
class RootData:
    """The server's own, trusted samples.

    Attributes:
      images: uint8 `[m, height, width, channels]`, `m >= 1`.
      labels: int32 `[m]`.
      train: (start float32 `[d]`, round) → the update float32 `[d]` that the server gets when it
        trains on them exactly as a client would in that round.
    """

    images: np.ndarray
    labels: np.ndarray
    train: Callable[[np.ndarray, int], np.ndarray]


PROBE_DATA = "probe images"
"""What a defense needs if it looks at how clients' models see some images; see `Samples`."""


AUXILIARY_DATA = "auxiliary images"
"""What a defense needs if it learns from the server's images of some classes."""


@dataclass(frozen=True)
class Samples:
    """Labeled images: uint8 `[m, height, width, channels]`, int32 `[m]`, how many classes, names.

    The classes' names may be unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    names: tuple[str, ...] = ()

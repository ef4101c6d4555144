"""Trained detectors that a server without tffl can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Endpoint:
    """A function that an export serves.

    Attributes:
      function: Tensors, in the order of `inputs` and by their names → tensors by name.
      inputs: Name → shape, None for what may vary, and dtype.
    """

    function: Callable[..., dict[str, Any]]
    inputs: Mapping[str, tuple[tuple[int | None, ...], str]]


@dataclass(frozen=True)
class DetectorExport:
    """A trained detector that a server without tffl can load.

    Attributes:
      networks: Keras models by name.
      endpoints: What it serves, by the signature's name.
      arrays: What its inputs are made with, such as `probes`, `[p, height, width, channels]`.
      about: What else is needed to make its inputs and to judge the scores, for a JSON file.
    """

    networks: Mapping[str, keras.Model]
    endpoints: Mapping[str, Endpoint]
    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, Any]

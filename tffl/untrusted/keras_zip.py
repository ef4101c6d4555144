"""`.keras`: the weights only. The config is looked at as text for code, never deserialized."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tffl.untrusted import hdf5
from tffl.untrusted.archive import Archive
from tffl.untrusted.expected import Expected
from tffl.untrusted.refusal import Refused

CONFIG, WEIGHTS = "config.json", "model.weights.h5"

LARGEST_CONFIG = 1 << 22
"""Bytes; parsed, it takes many times as much memory."""

CODE = ("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper")
"""Classes with which a config brings code along. A global model that Keras loads in its safe mode
has none, so an honest client's has none either."""


def read(content: bytes, expected: Expected) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.keras` file, by variable.

    Raises:
      Refused: It is no such file, brings code along, or something in it is not as expected.
    """
    archive = Archive.of(content, expected.limit)
    for name in (CONFIG, WEIGHTS):
        if name not in archive.names:
            raise Refused(f"is no Keras file: it lacks {name}")
    try:
        config = json.loads(archive.read(CONFIG, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{CONFIG} is no readable JSON: {error}") from None
    _check_no_code(config)
    return hdf5.read(archive.read(WEIGHTS), expected)


def _check_no_code(config: Any) -> None:
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("class_name") in CODE:
                raise Refused(f"{CONFIG} brings code along: a {value['class_name']}")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)

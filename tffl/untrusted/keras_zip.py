"""`.keras`: the weights only; the config is compared with the global model's, as text."""

from __future__ import annotations

import json

import numpy as np

from tffl.untrusted import hdf5
from tffl.untrusted.archive import Archive
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.refusal import Refused, printable

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

LARGEST_CONFIG = 1 << 22
"""Bytes; parsed, it takes many times as much memory."""


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.keras` file, by variable.

    Raises:
      Refused: It is no such file, brings code along, or something in it is not as expected.
    """
    archive = Archive.of(content, expected.limit)
    for name in (CONFIG, WEIGHTS):
        if name not in archive.names:
            raise Refused(f"is no Keras file: it lacks {name}")
    for name in archive.names:
        if name not in (CONFIG, METADATA, WEIGHTS):
            raise Refused(f"holds {printable(name)}, which Keras does not write for this model")
    try:
        config = json.loads(archive.read(CONFIG, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{CONFIG} is no readable JSON: {error}") from None
    expected.allowed_names.check(config)
    return hdf5.read(archive.read(WEIGHTS), expected)

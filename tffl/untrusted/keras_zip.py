"""`.keras` files: only the weights are read; the config is checked as plain JSON, never loaded."""

from __future__ import annotations

import json

import numpy as np

from tffl.untrusted import hdf5
from tffl.untrusted.archive import Archive
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.refusal import Refused, printable

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

LARGEST_CONFIG = 1 << 22
"""The largest config in bytes; parsing it takes many times as much memory."""


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Reads a `.keras` file.

    Args:
      content: The bytes of the file.
      expected: The variables that it must hold.

    Returns:
      Variable name → array.

    Raises:
      Refused: The bytes are not such a file, its config names code that the global model does not
        have, or its content is not the expected one.
    """
    archive = Archive.of(content, expected.limit)
    for name in (CONFIG, WEIGHTS):
        if name not in archive.names:
            raise Refused(f"is not a Keras file: it lacks {name}")
    for name in archive.names:
        if name not in (CONFIG, METADATA, WEIGHTS):
            raise Refused(f"holds {printable(name)}, which Keras does not write for this model")
    try:
        config = json.loads(archive.read(CONFIG, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{CONFIG} is not readable JSON: {error}") from None
    expected.allowed_names.check(config)
    return hdf5.read(archive.read(WEIGHTS), expected)

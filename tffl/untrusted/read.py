"""One client's model from one file or folder, whatever its format."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tffl.untrusted import saved_model
from tffl.untrusted.expected import Expected
from tffl.untrusted.folder import read_bytes
from tffl.untrusted.refusal import Refused

Reader: TypeAlias = Callable[[bytes, Expected], dict[str, np.ndarray]]

FORMATS = {
    ".keras": "tffl.untrusted.keras_zip",
    ".weights.h5": "tffl.untrusted.hdf5",
    ".npz": "tffl.untrusted.npz",
    ".safetensors": "tffl.untrusted.safetensors_file",
}
"""End of the name → the module whose `read` reads such files."""


def read_model(path: Path, expected: Expected) -> np.ndarray:
    """Reads a client's model.

    Args:
      path: A file or a SavedModel folder; links are not followed but in the folder it lies in.
      expected: What it has to hold.

    Returns:
      Finite weights, float32 `[d]`.

    Raises:
      Refused: It cannot be such a model; the message is the reason, without the path.
    """
    try:
        return expected.vector(_arrays(path, expected))
    except Refused:
        raise
    except Exception as error:  # damaged files surprise every library in its own way
        line = " ".join(str(error).split())
        raise Refused(f"is damaged: {type(error).__name__}: {line}") from None


def _arrays(path: Path, expected: Expected) -> dict[str, np.ndarray]:
    name = path.name
    if stat.S_ISDIR(os.lstat(path).st_mode):
        return saved_model.read(path.parent, name, expected)
    content = read_bytes(path.parent, (name,), expected.limit)
    for suffix, module in FORMATS.items():
        if name.endswith(suffix):
            read: Reader = import_module(module).read
            return read(content, expected)
    raise Refused(f"is of no known kind: {', '.join(FORMATS)} or a SavedModel folder")

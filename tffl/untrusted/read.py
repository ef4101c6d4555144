"""Reads one client's model from a file or folder of any known format."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tffl.untrusted import saved_model
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.hdf5 import MAGIC
from tffl.untrusted.keras_zip import CONFIG, WEIGHTS
from tffl.untrusted.refusal import Refused
from tffl.untrusted.safe_files import read_bytes

Reader: TypeAlias = Callable[[bytes, ExpectedVariables], dict[str, np.ndarray]]

FORMATS = {
    ".keras": "tffl.untrusted.keras_zip",
    ".weights.h5": "tffl.untrusted.hdf5",
    ".npz": "tffl.untrusted.npz",
    ".safetensors": "tffl.untrusted.safetensors_file",
}
"""Suffix of the file name, in upper or lower case → the module whose `read` reads such files."""


def read_model(path: Path, expected: ExpectedVariables) -> np.ndarray:
    """Reads a client's model.

    Args:
      path: A file or a SavedModel folder. Its parent folder may be a link; the file may not.
      expected: The variables that it must hold.

    Returns:
      Finite weights, float32 `[d]`.

    Raises:
      Refused: The file does not hold such a model; the message is the reason, without the path.
    """
    try:
        return expected.vector(_arrays(path, expected))
    except Refused:
        raise
    except Exception as error:  # every library fails differently on damaged files
        line = " ".join(str(error).split())
        raise Refused(f"is damaged: {type(error).__name__}: {line}") from None


def _arrays(path: Path, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    name = path.name
    if stat.S_ISDIR(os.lstat(path).st_mode):
        return saved_model.read(path.parent, name, expected)
    content = read_bytes(path.parent, (name,), expected.limit)
    kind = file_format(content, name)
    if kind is None:
        formats = ", ".join(FORMATS)
        raise Refused(f"has no known format: it should be {formats} or a SavedModel folder")
    if kind in (".keras", ".weights.h5") and not expected.h5_paths:
        raise Refused(
            "is a file of Keras, and the global model is a SavedModel, which does not say where "
            "such a file keeps each variable: give the global model as a .keras file"
        )
    read: Reader = import_module(FORMATS[kind]).read
    return read(content, expected)


def file_format(content: bytes, name: str) -> str | None:
    """Returns the key in `FORMATS` that fits a file's content, or None.

    A file can begin as one format and end as another. Where the content fits several formats or
    none, the name decides, because that is how the file's user would load it.

    Args:
      content: The bytes of the file.
      name: The name of the file.
    """
    fitting = _fitting_formats(content)
    named = next((suffix for suffix in FORMATS if name.lower().endswith(suffix)), None)
    if len(fitting) == 1:
        return fitting[0]
    return named if named in fitting or not fitting else None


def _fitting_formats(content: bytes) -> list[str]:
    found = []
    if zipfile.is_zipfile(io.BytesIO(content)):
        # The archive is not opened yet: its reader checks the number of members first.
        keras_file = any(member.encode() in content for member in (CONFIG, WEIGHTS))
        found.append(".keras" if keras_file else ".npz")
    if content.startswith(MAGIC):
        found.append(".weights.h5")
    if content[8:9] == b"{":  # a JSON header follows its eight-byte length
        found.append(".safetensors")
    return found

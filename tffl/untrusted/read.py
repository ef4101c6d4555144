"""One client's model from one file or folder, whatever its format."""

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
"""End of the name, in any case → the module whose `read` reads such files."""


def read_model(path: Path, expected: ExpectedVariables) -> np.ndarray:
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


def _arrays(path: Path, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    name = path.name
    if stat.S_ISDIR(os.lstat(path).st_mode):
        return saved_model.read(path.parent, name, expected)
    content = read_bytes(path.parent, (name,), expected.limit)
    kind = file_format(content, name)
    if kind is None:
        raise Refused(f"is of no known kind: {', '.join(FORMATS)} or a SavedModel folder")
    read: Reader = import_module(FORMATS[kind]).read
    return read(content, expected)


def file_format(content: bytes, name: str) -> str | None:
    """Returns the key in `FORMATS` of what a file is, told by its content.

    The name decides where its content could be several or none: a file may begin as one kind and
    end as another, and has to be judged as what its user would load it as.
    """
    kinds = _kinds(content)
    named = next((suffix for suffix in FORMATS if name.lower().endswith(suffix)), None)
    if len(kinds) == 1:
        return kinds[0]
    return named if named in kinds or not kinds else None


def _kinds(content: bytes) -> list[str]:
    found = []
    if zipfile.is_zipfile(io.BytesIO(content)):
        # Not opened yet: what an archive lists is bounded by its reader first.
        keras_file = any(member.encode() in content for member in (CONFIG, WEIGHTS))
        found.append(".keras" if keras_file else ".npz")
    if content.startswith(MAGIC):
        found.append(".weights.h5")
    if content[8:9] == b"{":  # after the length of a header in JSON
        found.append(".safetensors")
    return found

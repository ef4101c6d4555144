"""Arrays on disk as safetensors, with a checksum that detects damage."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tffl.core.atomic import replacing
from tffl.core.errors import TfflError

FORMAT = "1"
"""Version of the file format; raise it when an old reader would misread a new file."""


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and strings atomically; the arrays are not copied if they are contiguous.

    Raises:
      TfflError: The file cannot be written; an older file is unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    header = {**metadata, "format": FORMAT}
    header["sha256"] = _digest(arrays, header)
    with replacing(path) as temporary:
        try:
            save_file(arrays, temporary, metadata=header)
        except SafetensorError as error:  # the library raises it for a full disk too
            raise _os_error(str(error)) from None


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and strings of a file that `write_tensors` wrote.

    Raises:
      TfflError: The file is missing, truncated, altered, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise TfflError(f"{path} is unreadable: {error}") from None
    if header.get("format") != FORMAT:
        raise TfflError(f"{path} has format {header.get('format')}, this version reads {FORMAT}")
    if header.pop("sha256", "") != _digest(arrays, header):
        raise TfflError(f"{path} is corrupted: its checksum does not match")
    return arrays, header


def _os_error(text: str) -> OSError:
    """Returns the error of the operating system; its number identifies a full disk."""
    number = re.search(r"\(os error (\d+)\)", text)
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(text)


def _digest(arrays: Mapping[str, np.ndarray], header: Mapping[str, str]) -> str:
    """Returns the SHA-256 of all that a file holds: strings, names, types, shapes and values."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

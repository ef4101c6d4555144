"""`.weights.h5` files: `model.save_weights` writes them, and a `.keras` file contains one.

Only plain arrays are read: each must be complete, stored contiguously in this file and reached by a
hard link. So nothing is decompressed, no filter is loaded and no other file is opened. Attributes
are not read.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.h5_paths import weight_datasets
from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.server_variables import is_server_variable

if TYPE_CHECKING:
    from tffl.core.layout import Entry

MAGIC = b"\x89HDF\r\n\x1a\n"

ATTRIBUTES = ("backend", "keras_version")
"""The attributes that older versions of Keras give a weights file; Keras 3 gives none."""


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Reads a `.weights.h5` file.

    Args:
      content: The bytes of the file.
      expected: The variables that it must hold.

    Returns:
      Variable name → array.

    Raises:
      Refused: The bytes are not such a file, or its content is not the expected one.
    """
    import h5py

    if not content.startswith(MAGIC):
        raise Refused("is not an HDF5 file")
    try:
        file = h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise Refused(f"is not a readable HDF5 file: {error}") from None
    with file:
        _check_no_config(file)
        found = {
            path: dataset
            for path, dataset in weight_datasets(file)
            if path in expected.h5_paths or not is_server_variable(dataset.dtype)
        }
        expected.check_names(found, expected.h5_paths)
        paths = dict(zip(expected.layout.entries, expected.h5_paths, strict=True))
        _check_distinct(found, paths)
        return {
            entry.name: _array(found[path], entry, expected, len(content))
            for entry, path in paths.items()
        }


def _check_no_config(file: Any) -> None:
    """Refuses a whole model in the old format: the config in its attributes could hold code."""
    unusual = sorted(set(file.attrs) - set(ATTRIBUTES))
    if unusual:
        raise Refused(
            f"has an attribute {printable(unusual[0])}, as whole models in Keras' old format do: "
            "loading it could run code, so save only the weights, or a .keras file"
        )


def _check_distinct(found: dict[str, Any], paths: dict[Entry, str]) -> None:
    """Refuses a file in which two variables are the same array under two names."""
    import h5py

    owners: dict[Any, str] = {}
    for entry, path in paths.items():
        other = owners.setdefault(h5py.h5o.get_info(found[path].id).addr, entry.name)
        if other != entry.name:
            raise Refused(f"{other} and {entry.name} are the same array")


def _array(dataset: Any, entry: Entry, expected: ExpectedVariables, size: int) -> np.ndarray:
    """Reads an array after checking its type, shape and storage."""
    import h5py

    expected.check(entry, dataset.shape, dataset.dtype)
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        raise Refused(f"{entry.name} is stored in another file")
    layout = properties.get_layout()
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise Refused(
            f"{entry.name} is stored in chunks or virtually: Keras stores arrays contiguously"
        )
    needed = entry.size * dataset.dtype.itemsize
    end = needed + (dataset.id.get_offset() or 0 if layout == h5py.h5d.CONTIGUOUS else 0)
    if dataset.id.get_storage_size() != needed or end > size:
        raise Refused(f"{entry.name} is incomplete")
    return np.asarray(dataset[()])

"""`.weights.h5`: what `model.save_weights` writes, and what a `.keras` file holds.

Only plain arrays are read: hard links, stored in one piece inside the file, complete. So there is
nothing to inflate, no filter to load, and no other file to open. Attributes are not read.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.h5_paths import datasets
from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.server_variables import is_server_variable

if TYPE_CHECKING:
    from tffl.core.layout import Entry

MAGIC = b"\x89HDF\r\n\x1a\n"

ATTRIBUTES = ("backend", "keras_version")
"""Of the whole file; files of Keras 3 have none, and older ones these."""


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.weights.h5`, by variable.

    Raises:
      Refused: It is no such file, or something in it is not as expected.
    """
    import h5py

    if not content.startswith(MAGIC):
        raise Refused("is no HDF5 file")
    try:
        file = h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise Refused(f"is no readable HDF5 file: {error}") from None
    with file:
        _check_no_config(file)
        found = {
            path: dataset
            for path, dataset in datasets(file)
            if path in expected.h5_paths or not is_server_variable(dataset.dtype)
        }
        expected.check_names(found, expected.h5_paths)
        places = dict(zip(expected.layout.entries, expected.h5_paths, strict=True))
        _check_distinct(found, places)
        return {
            entry.name: _array(found[path], entry, expected, len(content))
            for entry, path in places.items()
        }


def _check_no_config(file: Any) -> None:
    """Raises `Refused` for a whole model, whose config in an attribute may hold code."""
    unusual = sorted(set(file.attrs) - set(ATTRIBUTES))
    if unusual:
        raise Refused(
            f"has an attribute {printable(unusual[0])}, as whole models in Keras' old format have: "
            "loading it could run code, so save weights only, or a .keras file"
        )


def _check_distinct(found: dict[str, Any], places: dict[Entry, str]) -> None:
    """Raises `Refused` if two variables are one array under two names."""
    import h5py

    owners: dict[Any, str] = {}
    for entry, path in places.items():
        other = owners.setdefault(h5py.h5o.get_info(found[path].id).addr, entry.name)
        if other != entry.name:
            raise Refused(f"{other} and {entry.name} are the same array")


def _array(dataset: Any, entry: Entry, expected: ExpectedVariables, size: int) -> np.ndarray:
    """Reads an array after a look at its type, shape and storage."""
    import h5py

    expected.check(entry, dataset.shape, dataset.dtype)
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        raise Refused(f"{entry.name} is stored in another file")
    layout = properties.get_layout()
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise Refused(
            f"{entry.name} is stored in chunks or virtually: Keras stores it in one piece"
        )
    needed = entry.size * dataset.dtype.itemsize
    end = needed + (dataset.id.get_offset() or 0 if layout == h5py.h5d.CONTIGUOUS else 0)
    if dataset.id.get_storage_size() != needed or end > size:
        raise Refused(f"{entry.name} is incomplete")
    return np.asarray(dataset[()])

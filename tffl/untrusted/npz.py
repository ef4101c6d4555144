"""`.npz` files, as `np.savez` and `np.savez_compressed` write them."""

from __future__ import annotations

import io
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from tffl.core.layout import Entry
from tffl.untrusted.archive import Archive
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.server_variables import is_server_variable

SUFFIX = ".npy"

DAMAGE = (ValueError, KeyError, TypeError, SyntaxError, TokenError)
"""The errors that NumPy raises for a damaged header."""


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Reads an `.npz` file. Integers and booleans are ignored.

    Args:
      content: The bytes of the file. Its arrays have the names of the variables, or are called
        `arr_0`, `arr_1`, … in the order of `model.weights`.
      expected: The variables that it must hold.

    Returns:
      Variable name → array.

    Raises:
      Refused: The bytes are not such a file, or its content is not the expected one.
    """
    archive = Archive.of(content, expected.limit)
    for name in archive.names:
        if not name.endswith(SUFFIX):
            raise Refused(f"holds {printable(name)}, which is not an array")
    entries, positions = expected.layout.entries, expected.layout.positions
    by_position = [f"arr_{position}" for position in positions]
    found = [name.removesuffix(SUFFIX) for name in archive.names]
    names = [entry.name for entry in entries]
    names = by_position if any(name in by_position for name in found) else names
    found = [name for name in found if name in names or not _is_counter(archive, name)]
    expected.check_names(found, names)
    return {
        entry.name: _array(archive.read(f"{name}{SUFFIX}"), entry, expected)
        for entry, name in zip(entries, names, strict=True)
    }


def _is_counter(archive: Archive, name: str) -> bool:
    try:
        return is_server_variable(_header(io.BytesIO(archive.read(f"{name}{SUFFIX}")))[2])
    except DAMAGE:  # its unexpected name gets it refused later
        return False


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns an array's shape, whether it is in column-major order, and its dtype."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    return readers[npy.read_magic(stream)](stream)


def _array(content: bytes, entry: Entry, expected: ExpectedVariables) -> np.ndarray:
    """Reads one array after checking its header."""
    stream = io.BytesIO(content)
    try:
        shape, column_major, dtype = _header(stream)
    except DAMAGE as error:
        raise Refused(f"{entry.name} has no readable NumPy header: {error}") from None
    expected.check(entry, shape, dtype)
    begin = stream.tell()
    if len(content) - begin != entry.size * dtype.itemsize:
        raise Refused(f"{entry.name} has {len(content) - begin} bytes, which do not fit its header")
    values = np.frombuffer(content, dtype, offset=begin)
    return values.reshape(entry.shape, order="F" if column_major else "C")

"""`.npz`: what `np.savez` and `np.savez_compressed` write, by variable path or by position."""

from __future__ import annotations

import io
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from tffl.core.layout import Entry
from tffl.untrusted.archive import Archive
from tffl.untrusted.expected import Expected
from tffl.untrusted.refusal import Refused, shown

SUFFIX = ".npy"


def read(content: bytes, expected: Expected) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.npz`, by variable.

    They are named like the variables, or `arr_0`, `arr_1`, … in the order of `model.weights`.

    Raises:
      Refused: It is no such file, or something in it is not as expected.
    """
    archive = Archive.of(content, expected.limit)
    for name in archive.names:
        if not name.endswith(SUFFIX):
            raise Refused(f"holds {shown(name)}, which is no array")
    found = [name.removesuffix(SUFFIX) for name in archive.names]
    entries = expected.layout.entries
    positions = [f"arr_{number}" for number in range(len(entries))]
    by_position = any(name in positions for name in found)
    names = positions if by_position else [entry.name for entry in entries]
    expected.check_names(found, names)
    return {
        entry.name: _array(archive.read(f"{name}{SUFFIX}"), entry, expected)
        for entry, name in zip(entries, names, strict=True)
    }


def _array(content: bytes, entry: Entry, expected: Expected) -> np.ndarray:
    """Reads one array, after a look at its header."""
    stream = io.BytesIO(content)
    try:
        header = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }[npy.read_magic(stream)]
        shape, columns_first, dtype = header(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
        raise Refused(f"{entry.name} has no readable NumPy header: {error}") from None
    expected.check(entry, shape, dtype)
    begin = stream.tell()
    if len(content) - begin != entry.size * dtype.itemsize:
        raise Refused(f"{entry.name} has {len(content) - begin} bytes, which do not fit its header")
    values = np.frombuffer(content, dtype, offset=begin)
    return values.reshape(entry.shape, order="F" if columns_first else "C")

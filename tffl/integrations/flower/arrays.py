"""Conversion between Flower's array records and flat weight vectors."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy

from tffl.core.layout import Entry, WeightLayout
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.refusal import Refused, printable

HEADER = 1 << 14
"""Bytes allowed for the header of a serialized array; NumPy reads no longer one."""


def to_record(weights: np.ndarray, keys: Sequence[str], layout: WeightLayout) -> ArrayRecord:
    """Returns weights and the server's own variables as an array record.

    Args:
      weights: Weights, float32 `[d]`.
      keys: The names of the arrays, in the order of the model's variables.
      layout: The layout of the global model.
    """
    arrays = layout.unflatten(weights)
    return ArrayRecord({key: Array(array) for key, array in zip(keys, arrays, strict=True)})


def flat_weights(
    record: ArrayRecord | None, keys: Sequence[str], layout: WeightLayout
) -> np.ndarray:
    """Returns the arrays of a record as one vector.

    Args:
      record: The record; None stands for an empty one.
      keys: The names of the arrays, in the order of the model's variables.
      layout: The layout of the global model.

    Returns:
      Finite weights, float32 `[d]`.

    Raises:
      Refused: An array is missing, has another shape or dtype than its variable (float32 is always
        accepted), or is not finite.
    """
    found = {} if record is None else record
    expected = len(layout.entries) + len(layout.server_variables)
    if len(found) != expected or len(keys) != expected:
        raise Refused(f"{len(found)} arrays: it should be {expected}")
    missing = [key for key in keys if key not in found]
    if missing:
        raise Refused(f"array {printable(missing[0])} is missing")
    arrays = {
        entry.name: _values(found[keys[position]], entry)
        for position, entry in zip(layout.positions, layout.entries, strict=True)
    }
    return ExpectedVariables(layout, ()).vector(arrays)


def _values(array: Array, entry: Entry) -> np.ndarray:
    """Reads one array after checking its header, so that it cannot demand too much memory."""
    if array.stype != "numpy.ndarray":
        raise Refused(f"{entry.name} is stored as {printable(array.stype)}, not as numpy.ndarray")
    if len(array.data) > entry.size * 8 + HEADER:
        raise Refused(f"{entry.name} has {len(array.data)} bytes for {entry.size} values")
    stream = io.BytesIO(array.data)
    try:
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, columns_first, dtype = readers[npy.read_magic(stream)](stream)
    except Exception as error:  # hostile bytes can make NumPy's parser raise anything
        raise Refused(f"{entry.name} has no readable NumPy header: {error}") from None
    own = "V2" if entry.dtype == "bfloat16" else entry.dtype  # NumPy has no bfloat16
    if dtype not in (np.dtype(np.float32), np.dtype(own)):
        raise Refused(f"{entry.name} holds {dtype}: it should be {entry.dtype}")
    if tuple(shape) != entry.shape:
        raise Refused(f"{entry.name} has shape {shape}: it should be {entry.shape}")
    begin = stream.tell()
    if len(array.data) - begin != entry.size * dtype.itemsize:
        raise Refused(f"{entry.name} has {len(array.data) - begin} bytes, which do not fit")
    values = np.frombuffer(array.data, dtype, offset=begin)
    return values.reshape(entry.shape, order="F" if columns_first else "C")

"""`.safetensors`: what `safetensors.numpy.save_file` writes, by variable path."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tffl.core.layout import Entry
from tffl.untrusted.expected import MARGIN, ExpectedVariables
from tffl.untrusted.refusal import Refused, printable

DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "V2"}
COUNTERS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.safetensors` file, by variable; integers are passed over.

    Raises:
      Refused: It is no such file, or something in it is not as expected.
    """
    from safetensors import SafetensorError, deserialize

    known = {entry.name for entry in expected.layout.entries}
    found = [name for name, dtype in _types(content) if name in known or dtype not in COUNTERS]
    expected.check_names(found)
    try:
        tensors: dict[str, Any] = dict(deserialize(content))
    except SafetensorError as error:
        raise Refused(f"is no readable safetensors file: {error}") from None
    return {e.name: _array(tensors[e.name], e, expected) for e in expected.layout.entries}


def _types(content: bytes) -> list[tuple[str, Any]]:
    """Returns names and types in the header, of which the library would keep the last of each."""
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, MARGIN):
        raise Refused(f"says that its header has {length:,} bytes")
    types: list[tuple[str, Any]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The outermost object comes last.
        types[:] = [(k, v.get("dtype") if isinstance(v, dict) else None) for k, v in pairs]
        return dict(pairs)

    try:
        json.loads(content[8 : 8 + length], object_pairs_hook=note)
    except (ValueError, RecursionError) as error:
        raise Refused(f"has no readable header: {error}") from None
    return [(name, dtype) for name, dtype in types if name != "__metadata__"]


def _array(tensor: dict[str, Any], entry: Entry, expected: ExpectedVariables) -> np.ndarray:
    bfloat16 = tensor["dtype"] == "BF16" and entry.dtype != "bfloat16"
    if tensor["dtype"] not in DTYPES or bfloat16:
        told = printable(str(tensor["dtype"]))
        raise Refused(f"{entry.name} holds {told}: it should be F32, F16 or F64")
    dtype = np.dtype(DTYPES[tensor["dtype"]])
    expected.check(entry, tuple(tensor["shape"]), dtype)
    return np.frombuffer(tensor["data"], dtype).reshape(entry.shape)

"""`.safetensors` files, as `safetensors.numpy.save_file` writes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tffl.core.layout import Entry
from tffl.untrusted.expected import MARGIN, ExpectedVariables
from tffl.untrusted.refusal import Refused, printable

DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "V2"}
INTEGERS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


def read(content: bytes, expected: ExpectedVariables) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file. Integers and booleans are ignored.

    Args:
      content: The bytes of the file. Its arrays have the names of the variables.
      expected: The variables that it must hold.

    Returns:
      Variable name → array.

    Raises:
      Refused: The bytes are not such a file, or its content is not the expected one.
    """
    from safetensors import SafetensorError, deserialize

    known = {entry.name for entry in expected.layout.entries}
    found = [name for name, dtype in _types(content) if name in known or dtype not in INTEGERS]
    expected.check_names(found)
    try:
        tensors: dict[str, Any] = dict(deserialize(content))
    except SafetensorError as error:
        raise Refused(f"is not a readable safetensors file: {error}") from None
    return {e.name: _array(tensors[e.name], e, expected) for e in expected.layout.entries}


def _types(content: bytes) -> list[tuple[str, Any]]:
    """Returns every name and type in the header; the library keeps only the last of equal names."""
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, MARGIN):
        raise Refused(f"claims that its header has {length:,} bytes")
    types: list[tuple[str, Any]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The parser calls this for the outermost object last.
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
        dtype_name = printable(str(tensor["dtype"]))
        raise Refused(f"{entry.name} holds {dtype_name}: it should be F32, F16 or F64")
    dtype = np.dtype(DTYPES[tensor["dtype"]])
    expected.check(entry, tuple(tensor["shape"]), dtype)
    return np.frombuffer(tensor["data"], dtype).reshape(entry.shape)

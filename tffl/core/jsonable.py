"""Values that JSON can represent, and JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tffl.core.atomic import write_text


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON atomically; undefined numbers become null.

    Raises:
      TfflError: The file cannot be written.
    """
    write_text(path, json.dumps(plain(values), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Turns nested NumPy values into Python values, and non-finite numbers into None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""Update matrices that do not fit into memory: a file that only this process sees.

Rules read the matrix by blocks of columns, so that the system keeps in memory what is in use, and
writes the rest to the disk and drops it when memory is wanted elsewhere.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np

from tffl.core.errors import TfflError


def zeros(rows: int, columns: int) -> np.ndarray:
    """Returns a float32 matrix `[rows, columns]` of zeros in a temporary file.

    The file is in the system's folder for such files (`TMPDIR` names another), has no name, and is
    gone with the matrix.

    Raises:
      TfflError: The disk has no room for it, or refuses.
    """
    size = rows * columns * 4
    try:
        with tempfile.TemporaryFile(prefix="tffl-") as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, np.float32, mode="r+", shape=(rows, columns))
    except OSError as error:
        raise TfflError(
            f"cannot keep {size / 2**30:.1f} GiB of updates in {tempfile.gettempdir()}: "
            f"{error.strerror}; TMPDIR names another folder"
        ) from error


def _reserve(descriptor: int, size: int) -> None:
    """Claims the space at once: a full disk kills a process that writes to a map."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)

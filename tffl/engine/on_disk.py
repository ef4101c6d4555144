"""Update matrices in a temporary file, for those that do not fit into memory.

Defenses read the matrix in blocks of columns. The operating system keeps the blocks in use in
memory, and moves the others to the disk when memory is needed.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np

from tffl.core.errors import TfflError


def zeros(rows: int, columns: int) -> np.ndarray:
    """Returns a float32 matrix `[rows, columns]` of zeros in a temporary file.

    The file is in the system's temporary folder, or in `TMPDIR`; it has no name, and is deleted
    with the matrix.

    Raises:
      TfflError: The disk is full or not writable.
    """
    size = rows * columns * 4
    try:
        with tempfile.TemporaryFile(prefix="tffl-") as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, np.float32, mode="r+", shape=(rows, columns))
    except OSError as error:
        raise TfflError(
            f"cannot keep {size / 2**30:.1f} GiB of updates in {tempfile.gettempdir()}: "
            f"{error.strerror}; set TMPDIR to another folder"
        ) from error


def _reserve(descriptor: int, size: int) -> None:
    """Reserves the space in advance: on a full disk, writing to a memory map kills the process."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)

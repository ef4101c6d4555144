"""A folder that one process at a time may write."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tffl.core.errors import TfflError, UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
"""Name of the file that is locked. It holds the process' number, and goes when the lock does."""

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


@contextmanager
def locked(folder: Path, warn: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Keeps other processes from writing into a folder until the block ends.

    The operating system holds the lock, so that it ends with its process, however that ends.

    Args:
      folder: It must exist.
      warn: Called with one line if the file system knows no locks; the block runs all the same.

    Raises:
      UsageError: Another process has the lock.
      TfflError: The folder cannot be written.
    """
    path = folder / LOCK
    descriptor = _acquire(path, warn)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no file that is open
            path.unlink()
        os.close(descriptor)
        if sys.platform == "win32":
            with suppress(OSError):
                path.unlink()


def _acquire(path: Path, warn: Callable[[str], None]) -> int:
    """Returns the descriptor of the lock file, once it is locked."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise TfflError(f"cannot write {path}: {error.strerror}") from error
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _TAKEN:
                os.close(descriptor)
                raise _taken(path) from None
            warn(
                f"the file system of {path.parent} knows no locks ({error.strerror}): take care "
                "that no other process writes there"
            )
            return descriptor
        if _is_same(descriptor, path):
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)  # its last holder has just deleted it


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _taken(path: Path) -> UsageError:
    holder = ""
    with suppress(OSError, ValueError):
        holder = f" (number {int(path.read_text())})"
    return UsageError(
        f"another process{holder} is writing {path.parent}: wait until it ends, or choose another "
        "folder"
    )

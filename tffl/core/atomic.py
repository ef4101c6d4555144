"""Files that are either the old ones or the new ones, never half of each."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tffl.core.errors import TfflError

TEMPORARY = ".tmp-"
"""Prefix of names that a killed write may leave behind."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path, in the folder of `path`, that takes its place at the end.

    What the caller makes there, a file or a folder, becomes `path` only when the block ends without
    an error and its bytes are on the disk. The temporary name keeps the suffix, because many
    writers choose their format by it.

    Raises:
      TfflError: The disk is full, the folder is not writable, …; `path` is as it was.
    """
    # A name of its own: another process may be writing the same file.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if path.is_dir():  # os.replace cannot overwrite a folder that has something in it
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise TfflError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        remove(temporary)


@contextmanager
def tensorflow_writing(path: Path) -> Iterator[None]:
    """Turns the errors of TensorFlow's own file system, which are no OSError, into one line.

    A full disk is the cause of that error as it is elsewhere: an `OSError`.

    Raises:
      TfflError: Something in `path` could not be written.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*?\]", "", " ".join(error.message.split()))
        full = isinstance(error, tf.errors.ResourceExhaustedError) and "No space left" in reason
        cause = OSError(errno.ENOSPC, reason) if full else error
        raise TfflError(f"cannot write {path}: {reason}") from cause


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically.

    Raises:
      TfflError: It cannot be written; an older file stays as it was.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes a UTF-8 file atomically; like `write_bytes`, line ends stay as they are."""
    write_bytes(path, content.encode())


def make_free_folder(path: Path) -> Path:
    """Makes and returns the first of `path`, `path-2`, `path-3`, … that is not there yet.

    Two processes never get the same one.

    Raises:
      TfflError: It cannot be made.
    """
    folder, number = path, 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
            folder = path.with_name(f"{path.name}-{number}")
    except OSError as error:
        raise TfflError(f"cannot make {folder}: {error.strerror or error}") from error


def remove_left_overs(path: Path) -> None:
    """Deletes what killed writes of `path` have left; nobody else may be writing it."""
    for file in path.parent.glob(f"{TEMPORARY}*-{path.name}"):
        remove(file)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there and can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink()
    except OSError:  # absent, or on a disk that refuses: the caller has nothing to lose by it
        return


def _flush(path: Path) -> None:
    """Waits until a file, or every file of a folder, is on the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())

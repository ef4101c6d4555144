"""Atomic writes: a file holds either its old or its new content, never a part of each."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tffl.core.errors import TfflError, require

TEMPORARY = ".tmp-"
"""Prefix of the temporary files that a killed process may leave behind."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path, in the folder of `path`, that replaces `path` at the end.

    The file or folder that the caller makes there becomes `path` only if the block ends without an
    error and its bytes are on the disk. The temporary name keeps the suffix, because many writers
    choose their format by it.

    Raises:
      TfflError: The disk is full or the folder is not writable, for example; `path` is unchanged.
    """
    # The name is unique: another process may be writing the same file.
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
    """Turns errors of TensorFlow's file system, which are not `OSError`s, into one line.

    If the disk is full, the cause of the error is an `OSError`, as it is elsewhere.

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


def check_writable(path: Path) -> None:
    """Raises `UsageError` if a file cannot be made, before anything is computed for it."""
    folder = next(each for each in path.absolute().parents if each.exists())
    require(
        folder.is_dir() and os.access(folder, os.W_OK),
        f"cannot write {path}: {folder} is no folder that you can write to",
    )


def make_free_folder(path: Path) -> Path:
    """Makes and returns the first of `path`, `path-2`, `path-3`, … that does not exist yet.

    Two processes never get the same folder.

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
    """Deletes temporary files of `path` left by killed processes; no process may be writing it."""
    for file in path.parent.glob(f"{TEMPORARY}*-{path.name}"):
        remove(file)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it exists and can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink()
    except OSError:  # absent, or not deletable: neither matters to the caller
        return


def _flush(path: Path) -> None:
    """Waits until a file, or every file of a folder, is on the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())

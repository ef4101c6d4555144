"""Safe reading of files in a folder that strangers can write to.

A file is read only if it is regular, no larger than a limit, inside the folder, and unchanged while
it is read. Links are never followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tffl.untrusted.refusal import Refused

KINDS = {
    stat.S_IFLNK: "a symbolic link, which may lead anywhere",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

MIB = 1 << 20


def read_bytes(folder: Path, parts: tuple[str, ...], limit: int) -> bytes:
    """Reads a file once, through one descriptor, without following a link.

    Args:
      folder: The folder that contains the file. It belongs to the user and may be a link itself.
      parts: The path inside the folder, such as `("model", "variables", "variables.index")`.
      limit: The largest size in bytes; a larger file is not read at all.

    Raises:
      Refused: A part of the path is a link, or the file is not a regular file, is empty, exceeds
        `limit`, cannot be read, or changes while it is read.
    """
    try:
        descriptor = _open(folder, parts)
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        _check_kind(before, stat.S_IFREG, "")
        if before.st_size == 0:
            raise Refused("is empty")
        if before.st_size > limit:
            raise Refused(
                f"has {before.st_size / MIB:,.1f} MiB: a file of this model has at most "
                f"{limit / MIB:,.1f} MiB"
            )
        try:
            content = file.read(before.st_size + 1)
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}") from None
        if len(content) != before.st_size or _stamp(os.fstat(descriptor)) != _stamp(before):
            raise Refused("changed while it was read")
    return content


def entry_names(folder: Path, parts: tuple[str, ...]) -> list[str]:
    """Returns the sorted names in a subfolder, without following a link.

    Args:
      folder: As for `read_bytes`.
      parts: The path of the subfolder inside `folder`.

    Raises:
      Refused: A part of the path is a link, is missing, or cannot be read.
    """
    try:
        descriptor = _open(folder, parts, stat.S_IFDIR)
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from None
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def _open(folder: Path, parts: tuple[str, ...], kind: int = stat.S_IFREG) -> int:
    """Opens a file or folder by walking down one folder at a time, so no link is followed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    current = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    for number, part in enumerate(parts):
        wanted = kind if number == len(parts) - 1 else stat.S_IFDIR
        where = "/".join(parts[1 : number + 1])
        try:
            # Checked before it is opened, because opening a device can have side effects.
            status = os.stat(part, dir_fd=current, follow_symlinks=False)
            _check_kind(status, wanted, where)
            directory = os.O_DIRECTORY if wanted == stat.S_IFDIR else 0
            opened = os.open(part, flags | directory, dir_fd=current)
        except FileNotFoundError:
            if not where:
                raise
            raise Refused(f"is not a complete SavedModel: it lacks {where}") from None
        finally:
            os.close(current)
        current = opened
    return current


def _check_kind(status: os.stat_result, wanted: int, where: str) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != wanted:
        name = KINDS.get(kind, "a special file" if kind != stat.S_IFREG else "a regular file")
        raise Refused(f"{where} is {name}" if where else f"is {name}")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

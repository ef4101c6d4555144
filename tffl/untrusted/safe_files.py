"""Bytes of files in a folder to which strangers write: bounded, regular, unchanged, inside it."""

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
      folder: Where the file has to be; it is the user's, and may be a link itself.
      parts: The way from there, such as `("model", "variables", "variables.index")`.
      limit: Most bytes; a larger file is not read at all.

    Raises:
      Refused: A part is a link, the file is no regular one, is empty, larger than `limit`, cannot
        be read, or changes meanwhile.
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
    """Returns the names in a folder within a folder, without following a link to it, sorted.

    Raises:
      Refused: A part is a link, is missing, or cannot be read.
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
    """Opens what `parts` lead to, folder by folder, so that no link is ever followed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    current = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    for number, part in enumerate(parts):
        wanted = kind if number == len(parts) - 1 else stat.S_IFDIR
        where = "/".join(parts[1 : number + 1])
        try:
            # Looked at before it is opened: opening a device may do something.
            what = os.stat(part, dir_fd=current, follow_symlinks=False)
            _check_kind(what, wanted, where)
            directory = os.O_DIRECTORY if wanted == stat.S_IFDIR else 0
            opened = os.open(part, flags | directory, dir_fd=current)
        except FileNotFoundError:
            if not where:
                raise
            raise Refused(f"is no whole SavedModel: it lacks {where}") from None
        finally:
            os.close(current)
        current = opened
    return current


def _check_kind(what: os.stat_result, wanted: int, where: str) -> None:
    kind = stat.S_IFMT(what.st_mode)
    if kind != wanted:
        name = KINDS.get(kind, "a special file" if kind != stat.S_IFREG else "a regular file")
        raise Refused(f"{where} is {name}" if where else f"is {name}")


def _stamp(what: os.stat_result) -> tuple[int, ...]:
    return what.st_dev, what.st_ino, what.st_size, what.st_mtime_ns, what.st_ctime_ns

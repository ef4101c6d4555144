"""Zip archives, as `.npz` and `.keras` files are, checked before anything is inflated."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from dataclasses import dataclass

from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.safe_files import MIB

ENCRYPTED = 0x1
MEMBER = b"PK\x01\x02"
"""Begins each entry of the table of contents."""

MOST = 10_000
"""Members of an archive: each takes memory before any of it can be judged."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Archive:
    """A zip archive in memory whose table of contents has passed all checks."""

    _file: zipfile.ZipFile
    names: tuple[str, ...]

    @classmethod
    def of(cls, content: bytes, limit: int) -> Archive:
        """Opens an archive.

        Args:
          content: All of it.
          limit: Most bytes that all members together may say they have when inflated.

        Raises:
          Refused: It is no archive, or has members that are too large, encrypted, packed in an
            unusual way, named twice, or named like a path that leads outside.
        """
        if content.count(MEMBER) > MOST:
            raise Refused(f"holds more than {MOST:,} members")
        try:
            file = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, RuntimeError) as error:  # the latter of unknown versions
            raise Refused(f"is no readable zip archive: {error}") from None
        members = file.infolist()
        for name, count in Counter(member.filename for member in members).items():
            if count > 1:
                raise Refused(f"holds {printable(name)} twice")
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise Refused(f"holds {printable(name)}, a path that leads outside")
        for member in members:
            if member.flag_bits & ENCRYPTED or member.compress_type not in METHODS:
                raise Refused(
                    f"{printable(member.filename)} is encrypted or packed in an unusual way"
                )
        inflated = sum(member.file_size for member in members)
        if inflated > limit:
            raise Refused(
                f"inflates to {inflated / MIB:,.1f} MiB: a file of this model has at most "
                f"{limit / MIB:,.1f} MiB"
            )
        return cls(file, tuple(member.filename for member in members))

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Inflates a member, to no more bytes than it says that it has.

        Raises:
          Refused: It has another length or checksum than it says, or more bytes than `limit`.
        """
        member = self._file.getinfo(name)
        if limit is not None and member.file_size > limit:
            raise Refused(f"{printable(name)} has more than {limit / MIB:,.1f} MiB")
        try:
            with self._file.open(member) as stream:
                content = stream.read(member.file_size + 1)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise Refused(f"{printable(name)} is damaged: {error}") from None
        if len(content) != member.file_size:
            raise Refused(f"{printable(name)} is truncated")
        return content

"""Zip archives (`.npz` and `.keras` files), checked before anything is decompressed."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from dataclasses import dataclass

from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.safe_files import MIB

ENCRYPTED = 0x1
DIRECTORY_ENTRY = b"PK\x01\x02"
"""The bytes that begin each entry of the central directory."""

MAX_MEMBERS = 10_000
"""Limit on the members of an archive: `zipfile` lists all of them in memory when it opens one."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Archive:
    """A zip archive in memory whose central directory has passed all checks.

    Attributes:
      names: The names of its members.
    """

    _file: zipfile.ZipFile
    names: tuple[str, ...]

    @classmethod
    def of(cls, content: bytes, limit: int) -> Archive:
        """Opens an archive.

        Args:
          content: The bytes of the archive.
          limit: The largest total size of the decompressed members, in bytes.

        Raises:
          Refused: The bytes are not a zip archive, or a member is too large, is encrypted, uses an
            unusual compression, occurs twice, or has a path that leads outside the archive.
        """
        if content.count(DIRECTORY_ENTRY) > MAX_MEMBERS:
            raise Refused(f"holds more than {MAX_MEMBERS:,} members")
        try:
            file = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: unknown zip version
            raise Refused(f"is not a readable zip archive: {error}") from None
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
        """Decompresses a member, up to the size that the archive declares for it.

        Args:
          name: One of `names`.
          limit: The largest size in bytes; None sets no limit of its own.

        Raises:
          Refused: The member does not have the declared length or checksum, or exceeds `limit`.
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

"""Reasons for refusing a file, and text of strangers made safe to print."""

from __future__ import annotations

from tffl.core.errors import TfflError

MAX_REASON = 300
"""The largest number of characters in a reason."""


class Refused(TfflError):
    """A client's file or reply was refused; the message gives the reason in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable(reason, MAX_REASON))


def printable(text: str, longest: int = 80) -> str:
    r"""Returns a stranger's text as one short line without control characters.

    Control characters in the names of files and variables could move the cursor of a terminal or
    change what it shows.

    Args:
      text: The text.
      longest: The largest number of characters; a longer text ends in an ellipsis.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    whole = escape_controls(text)
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def escape_controls(text: str, keep: str = "") -> str:
    r"""Returns text with control characters and direction marks written as escape sequences.

    Args:
      text: The text.
      keep: Characters that are left as they are, such as line ends.

    >>> escape_controls("a\u202eb\nc", keep="\n")
    'a\\u202eb\nc'
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)

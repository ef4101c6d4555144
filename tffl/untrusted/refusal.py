"""Why a file is refused, in words that are safe to print."""

from __future__ import annotations

from tffl.core.errors import TfflError

LONGEST = 300
"""Characters of a reason, at most."""


class Refused(TfflError):
    """A file is not the model that it should be; the message is the reason, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable(reason, LONGEST))


def printable(text: str, longest: int = 80) -> str:
    r"""Returns a stranger's text as one line without control characters, cut where it is long.

    Names of files and variables could move the cursor or change what a terminal shows otherwise.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    whole = escape_controls(text)
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def escape_controls(text: str, keep: str = "") -> str:
    r"""Returns text in which control characters, and marks that turn its direction, are seen.

    Args:
      text: Anybody's.
      keep: Characters that stay, such as line ends.

    >>> escape_controls("a\u202eb\nc", keep="\n")
    'a\\u202eb\nc'
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)

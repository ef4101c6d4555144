"""Text for terminals and pipes that know few characters, such as those of cron and CI runners."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_GREEK = (*range(0x391, 0x3A2), *range(0x3A3, 0x3AA), *range(0x3B1, 0x3CA))

REPLACEMENTS = {
    **dict.fromkeys("·‐‑‒–—−─━╸╺", "-"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”", '"'),
    "×": "x",
    "→": "->",
    "←": "<-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "‖": "||",
    **{chr(code): unicodedata.name(chr(code), "?").split()[-1].lower() for code in _GREEK},
}
"""Characters that the program prints → what replaces them where an encoding lacks them."""


def plain(text: str, encoding: str) -> str:
    r"""Replaces the characters that an encoding lacks by plain ones.

    >>> plain("1 × 2 → café · ε · 犬", "ascii")
    '1 x 2 -> cafe - epsilon - \\u72ac'
    """
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(_replacement(character, encoding) for character in text)


def _replacement(character: str, encoding: str) -> str:
    """Returns a character itself, or else plain ones, its letter without accents, or its code."""
    letter = unicodedata.normalize("NFKD", character)[0]
    for choice in (character, REPLACEMENTS.get(character, character), letter):
        try:
            choice.encode(encoding)
            return choice
        except UnicodeEncodeError:
            continue
    return character.encode(encoding, "backslashreplace").decode(encoding)


class PlainStream:
    """Wraps a text stream that lacks some characters, so that any can be written."""

    encoding = "utf-8"  # what rich and click go by: they would draw or encode in their own ways

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, with plain characters where the stream lacks others."""
        self._stream.write(plain(text, self._stream.encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Passes everything else on to the wrapped stream."""
        return getattr(self._stream, name)


@contextmanager
def plain_streams() -> Iterator[None]:
    """Lets everything be printed, whatever the encoding of standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_printable, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _printable(stream: Any) -> Any:
    """Wraps a stream that has an encoding; even UTF-8 lacks some characters: lone surrogates."""
    return PlainStream(stream) if getattr(stream, "encoding", None) else stream

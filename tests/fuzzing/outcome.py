"""What became of one hostile input."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tffl.core.errors import TfflError

LIMIT = 10.0
"""Seconds that one input may take."""

Ending: TypeAlias = Literal["accepted", "refused", "crash", "wrong", "non-finite"]
"""`wrong`: something malformed was accepted, something sound refused, or a result breaks its word.
`non-finite`: so does an aggregate, by NaN or infinity."""


class Broken(AssertionError):
    """A promise is broken: the result is `wrong`."""


class NotFinite(Broken):
    """NaN or infinity came out."""


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Attributes:
      ending: See above; the first two are good.
      seconds: How long it took.
      note: Why, in one line; of a crash with the place.
    """

    ending: Ending
    seconds: float
    note: str = ""

    @property
    def good(self) -> bool:
        return self.ending in ("accepted", "refused") and self.seconds <= LIMIT


def attempt(act: Callable[[], None]) -> Outcome:
    """Does something that may accept its input, refuse it with tffl's own error, or go wrong."""
    begin = time.perf_counter()
    ending: Ending = "accepted"
    note = ""
    try:
        act()
    except TfflError as error:
        ending, note = "refused", str(error)
        if not note or "\n" in note:
            ending = "wrong"
    except Broken as error:
        ending, note = "non-finite" if isinstance(error, NotFinite) else "wrong", str(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        ending, note = "crash", f"{type(error).__name__} at {where}: {error}"
    return Outcome(ending, time.perf_counter() - begin, " ".join(note.split())[:300])


def demand(condition: object, message: str) -> None:
    """Raises `Broken(message)` unless `condition` holds."""
    if not condition:
        raise Broken(message)

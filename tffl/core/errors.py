"""Errors that a user can read: one line each, with the exit code of the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class TfflError(Exception):
    """A run failed for a reason that the message states in one line (exit code 1)."""

    exit_code = 1


class WorkersLost(TfflError):
    """Nobody is left to train clients; the run can be resumed."""


class UsageError(TfflError):
    """What the user asked for is impossible or misspelled (exit code 2)."""

    exit_code = 2


class TfflWarning(UserWarning):
    """Something went wrong that the run survives, such as a picture that cannot be drawn."""


FAILURES = (UsageError, ArithmeticError, ValueError, RuntimeError, MemoryError)
"""How one cell of a grid may fail without ending the others; a damaged file or a full disk is
none."""


def reason(failure: BaseException) -> str:
    r"""Says in one line why something failed.

    >>> reason(UsageError("too few clients")), reason(ValueError("no\nsuch value"))
    ('too few clients', 'ValueError: no')
    """
    if isinstance(failure, TfflError):
        return str(failure)
    return f"{type(failure).__name__}: {failure}".splitlines()[0]


def require(condition: bool, message: str) -> None:
    """Raises `UsageError(message)` unless `condition` holds."""
    if not condition:
        raise UsageError(message)


def unknown(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """Builds the error for a misspelled name: the nearest valid one and all of them.

    >>> print(unknown("defense", "bias_anomaly", ["none", "bias-anomaly"]))
    unknown defense 'bias_anomaly': did you mean 'bias-anomaly'? (all: bias-anomaly, none)
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? (all: " if near else "(all: "
    return UsageError(f"unknown {kind} '{name}': {hint}{', '.join(names)})")


def first_line(error: BaseException) -> str:
    """Returns what an unexpected error says: its kind, and the first line of its message.

    Keras begins with the layer that was called, and ends with what is wrong and its arguments.

    >>> first_line(ValueError("no such layer"))
    'ValueError: no such layer'
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("\n\nArguments received")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    by_keras = text.startswith("Exception encountered when calling")
    said = " ".join([lines[0], lines[-1]] if by_keras else lines[:1])
    return ": ".join(filter(None, (type(error).__name__, said[:300])))

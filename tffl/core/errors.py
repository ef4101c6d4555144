"""Errors that a user can read: one line each, with the exit code of the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class TfflError(Exception):
    """A run failed for a reason that the message states in one line (exit code 1)."""

    exit_code = 1


class WorkersLost(TfflError):
    """No worker is left to train clients; the run can be resumed."""


class UsageError(TfflError):
    """An argument, option or file is impossible or misspelled (exit code 2)."""

    exit_code = 2


class TfflWarning(UserWarning):
    """Something went wrong that the run survives, such as a picture that cannot be drawn."""


FAILURES = (UsageError, ArithmeticError, ValueError, RuntimeError, MemoryError)
"""Failures of one cell of a grid that do not end the others; a damaged file or a full disk does."""


def reason(failure: BaseException) -> str:
    r"""Returns in one line why something failed.

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
    """Returns the class of an unexpected error and the first line of its message.

    Of a message by Keras, these are the lines that name the layer and say what is wrong.

    >>> first_line(ValueError("no such layer"))
    'ValueError: no such layer'
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("\n\nArguments received")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    by_keras = text.startswith("Exception encountered when calling")
    message = " ".join([lines[0], lines[-1]] if by_keras else lines[:1])
    return ": ".join(filter(None, (type(error).__name__, message[:300])))

"""Several callbacks, called in their order; if one fails, the others are called all the same.

If one fails, the others still receive the round, and the round is kept; then the run ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tffl.callbacks.base import Callback, Round, Start
from tffl.callbacks.metric import Metric
from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.core.rounding import nine_digits
from tffl.engine.observer import Observer

ROUND, CLIENTS = "rounds.csv", "clients.csv"


class Callbacks(Observer):
    """The callbacks of one run.

    Raises:
      UsageError: They are no list, or one is not a `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        require(
            isinstance(callbacks, Sequence),
            f"callbacks = {callbacks!r} is not allowed: give a list of them",
        )
        self._all = list(callbacks)
        self._failure: TfflError | None = None
        for callback in self._all:
            require(
                isinstance(callback, Callback),
                f"callbacks = [… {callback!r} …] is not allowed: give objects of classes that "
                "extend tffl.callbacks.Callback",
            )

    @property
    def failed(self) -> bool:
        """Whether one has failed in the round."""
        return self._failure is not None

    def phase(self, text: str) -> None:
        """Tells all what is being done outside the rounds."""
        for callback in self._all:
            callback.phase(text)

    def warning(self, text: str) -> None:
        """Tells all of something that the user should know."""
        for callback in self._all:
            callback.warning(text)

    def start(self, start: Start) -> str | None:
        """Tells all that rounds are about to be played; returns why none should be, if so."""
        reasons = [self._try(callback, "start", callback.start, start) for callback in self._all]
        self.raise_failure()
        return self._why(reasons)

    def with_columns(self, round: Round) -> Round:
        """Returns a round with the columns of all callbacks in its rows, behind those it has."""
        row = dict(round.row)
        client_rows = [dict(each) for each in round.client_rows]
        for callback in self._all:
            try:
                self._add_columns(callback, round, row, client_rows)
            except TfflError as error:
                self._remember(error)
        return replace(round, row=row, client_rows=client_rows)

    def with_metrics(self, round: Round) -> dict[str, Any]:
        """Returns the row of a round with the columns of metrics computed anew."""
        row = dict(round.row)
        for callback in self._all:
            if isinstance(callback, Metric):
                row.pop(callback.column, None)
                self._add_columns(callback, round, row, [])
        return row

    def round(self, round: Round) -> str | None:
        """Tells all of a round that has been played; returns why the run should end, if so."""
        place = f"round {round.number}"
        return self._why(self._try(each, place, each.round, round) for each in self._all)

    def raise_failure(self) -> None:
        """Raises the first `TfflError` that a callback's failure has become, if there is one."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def end(self, run: Any) -> None:
        """Tells all that the run is over."""
        for callback in self._all:
            self._try(callback, "end", callback.end, run)
        self.raise_failure()

    def _add_columns(
        self,
        callback: Callback,
        round: Round,
        row: dict[str, Any],
        client_rows: Sequence[dict[str, Any]],
    ) -> None:
        place = f"round {round.number}"
        found = self._try(callback, place, callback.round_columns, round)
        row.update(_checked(callback, ROUND, found, row))
        columns = self._try(callback, place, callback.client_columns, round)
        known = client_rows[0] if client_rows else {}
        cells: dict[str, Sequence[Any]] = {}
        for name, values in _mapping(callback, CLIENTS, columns).items():
            title = f"{callback}: column {name} of {CLIENTS}"
            shape = _array(title, values).shape
            if shape != (len(client_rows),):
                raise TfflError(
                    f"{title} has shape {shape}: give a number for each of {len(client_rows)} "
                    "clients"
                )
            cells[name] = [_checked(callback, CLIENTS, {name: v}, known)[name] for v in values]
        for name, column in cells.items():
            for each, value in zip(client_rows, column, strict=True):
                each[name] = value

    def _try(
        self, callback: Callback, place: str, function: Callable[[Any], Any], argument: Any
    ) -> Any:
        """Returns what a callback's method does; what fails there is remembered, and None.

        Files that cannot be written end the run at once: a checkpoint would pass them over.
        """
        try:
            return function(argument)
        except UsageError as error:
            self._remember(error)
        except TfflError:
            raise
        except Exception as error:  # of code that others have written
            failure = TfflError(f"the {callback} failed in {place}: {first_line(error)}")
            failure.__cause__ = error
            self._remember(failure)
        return None

    def _remember(self, failure: TfflError) -> None:
        self._failure = self._failure or failure

    def _why(self, reasons: Iterable[Any]) -> str | None:
        """Returns the first reason to end; whoever gives something else has failed."""
        pairs = zip(self._all, reasons, strict=True)
        found = [(callback, why) for callback, why in pairs if _is_said(why)]
        for callback, why in found:
            if not isinstance(why, str):
                self._remember(
                    TfflError(
                        f"the {callback} returned {why!r}: return None, or why the run should end"
                    )
                )
        return next((why for _, why in found if isinstance(why, str)), None)


def _is_said(why: Any) -> bool:
    try:
        return bool(why)
    except ValueError:  # of an array
        return True


def _mapping(callback: Callback, table: str, columns: Any) -> Mapping[str, Any]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise TfflError(f"{callback}: columns of {table} are {columns!r}: give names and values")
    return columns


def _checked(
    callback: Callback, table: str, columns: Any, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns new cells of a row as plain numbers.

    Raises:
      TfflError: A name is no name or taken, or a value is no number.
    """
    cells = {}
    for name, value in _mapping(callback, table, columns).items():
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)):
            raise TfflError(
                f"{callback}: {name!r} is not allowed as a column of {table}: write it like "
                "my_column"
            )
        if name in known:
            raise TfflError(
                f"{callback}: {table} has a column {name} already: give it another name"
            )
        cells[name] = _number(f"{callback}: column {name} of {table}", value)
    return cells


def _number(title: str, value: Any) -> int | float:
    array = _array(title, math.nan if value is None else value)
    if array.ndim != 0 or array.dtype.kind not in "biuf":
        what = f"has shape {array.shape}" if array.ndim else f"is {value!r}"
        raise TfflError(f"{title} {what}: give a number, or None for an empty cell")
    number = array.item()
    return nine_digits(number) if isinstance(number, float) else int(number)


def _array(title: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        raise TfflError(f"{title} is {values!r}: give numbers") from None

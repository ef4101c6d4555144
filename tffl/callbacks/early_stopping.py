"""Ends a run that no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from tffl.callbacks.base import Callback, Round, Start
from tffl.core.errors import unknown
from tffl.core.options import Options


@dataclass(frozen=True)
class EarlyStopping(Options, Callback):
    """Ends a run when a column of `rounds.csv` has not improved for some rounds.

    The run is complete then: it has its summary, which says `stopped_after`, and its exports. A
    resumed run counts from its tables, so that it stops where it would have stopped in one go; and
    one that has stopped goes on if it is resumed without this callback.

    Attributes:
      metric: The column, such as `"accuracy"`, `"attack_success"` or a metric of your own.
      patience: How many rounds without an improvement. A run ends in rounds only in which the
        column is known, so that `record.evaluate_every` may prolong it.
      mode: Whether higher (`"max"`) or lower (`"min"`) is better.
      min_delta: By how much at least a value has to be better. An undefined value is not.

    Raises:
      UsageError: A value is out of its range; or, in the first round, there is no such column.

    Example:
      >>> from tffl.config import Config
      >>> played = [{"accuracy": value} for value in (0.5, 0.7, 0.7, 0.6)]
      >>> EarlyStopping("accuracy", patience=2).start(Start(Config(), first=5, rows=played))
      'accuracy has not improved for 2 rounds'
    """

    metric: str = "accuracy"
    patience: Annotated[int, Field(ge=1)] = 5
    mode: Literal["max", "min"] = "max"
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    _values: list[float] = field(init=False, repr=False, compare=False, default_factory=list)

    def start(self, start: Start) -> str | None:
        """Counts in the rounds that were played before, unless the column is new."""
        self._values[:] = [self._value(row) for row in start.rows if self.metric in row]
        rounds = start.config.federation.rounds
        return self._reason(start.config.record.evaluates(start.first - 1, rounds))

    def round(self, round: Round) -> str | None:
        """Says whether it is time to end."""
        self._values.append(self._value(round.row))
        return self._reason(round.evaluated)

    def _value(self, row: Mapping[str, Any]) -> float:
        """Returns what is watched, so that higher is better; NaN where it is undefined."""
        if self.metric not in row:
            raise unknown("column of rounds.csv", self.metric, row)
        value = row[self.metric]
        return math.nan if value is None else float(value) * (1 if self.mode == "max" else -1)

    def _reason(self, evaluated: bool) -> str | None:
        """Returns why to end; the value of a round without evaluation is yet to come."""
        if not self._values or (not evaluated and math.isnan(self._values[-1])):
            return None
        waited = rounds_without_improvement(self._values, self.min_delta)
        if waited < self.patience:
            return None
        return f"{self.metric} has not improved for {waited} rounds"


def rounds_without_improvement(values: Sequence[float], min_delta: float = 0.0) -> int:
    """Returns how many values follow the last one that is better than all before it.

    Args:
      values: One per round; higher is better, NaN is undefined.
      min_delta: By how much at least.

    >>> rounds_without_improvement([0.5, 0.7, 0.7, math.nan])
    2
    """
    best, waited = -math.inf, 0
    for value in values:
        better = value > best + min_delta
        best, waited = (value, 0) if better else (best, waited + 1)
    return waited

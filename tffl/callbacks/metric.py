"""A metric of the user's own: one function, one column of `rounds.csv`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tffl.callbacks.base import Callback, Round
from tffl.core.errors import require
from tffl.core.registry import Registry

Function: TypeAlias = Callable[[np.ndarray, np.ndarray], float]
"""(labels int32 `[N]`, logits float32 `[N, classes]`) → a number."""

metrics = Registry(
    "metric",
    {
        "calibration-error": "tffl.callbacks.measures:calibration_error",
        "mean-confidence": "tffl.callbacks.measures:mean_confidence",
        "worst-class-accuracy": "tffl.callbacks.measures:worst_class_accuracy",
    },
)


@dataclass(frozen=True)
class Metric(Callback):
    """Adds a column to `rounds.csv`: what a function says of the global model's test outputs.

    Attributes:
      name: Of the column; a hyphen becomes an underscore.
      function: (labels int32 `[N]`, logits float32 `[N, classes]`) → a number. Rows of logits are
        not finite where the model is ruined. With several global models, a row has each class'
        votes.

    Raises:
      UsageError: `function` is not one.

    Example:
      >>> def mistakes(labels, logits):
      ...     return (logits.argmax(axis=1) != labels).sum()
      >>> int(Metric("mistakes", mistakes).function(np.array([0, 1]), np.eye(2)))
      0
    """

    name: str
    function: Function

    def __post_init__(self) -> None:
        """Checks the function."""
        require(
            callable(self.function),
            f"metric {self.name} = {self.function!r} is not allowed: give a function "
            "(labels, logits) → number",
        )

    @property
    def column(self) -> str:
        """The name of its column."""
        return self.name.replace("-", "_")

    def round_columns(self, round: Round) -> Mapping[str, Any]:
        """Returns its column; the cell is empty in a round without evaluation."""
        value = self.function(round.labels, round.logits) if round.evaluated else None
        return {self.column: value}

    def __str__(self) -> str:
        """Names it in messages."""
        return f"metric {self.name}"


def named_metrics(names: Iterable[str]) -> list[Metric]:
    """Returns registered metrics.

    Raises:
      UsageError: A name is unknown.
      TfflError: A plug-in cannot be used.
    """
    return [Metric(name, metrics[name]) for name in names]

"""What a simulation returns."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from tffl.config import Config


@dataclass(frozen=True)
class Run:
    """What a simulation returns.

    Attributes:
      config: The experiment.
      rounds: One row per round, the columns of `rounds.csv`.
      clients: One row per round and participant, the columns of `clients.csv`.
      summary: What `summary.json` says.
      model: The global model after the last round.
      directory: The run directory, if there is one.
    """

    config: Config
    rounds: pd.DataFrame
    clients: pd.DataFrame
    summary: dict[str, Any]
    model: keras.Model
    directory: Path | None = None

    def __repr__(self) -> str:
        """Says what was run and how it ended, in one line."""
        names = f"{self.config.attack.name} against {self.config.defense.name}"
        where = f", in {self.directory}" if self.directory else ""
        return f"<Run: {names} on {self.config.data.dataset}, {self._ended()}{where}>"

    def _repr_html_(self) -> str:
        """Returns the last rounds as a table, for notebooks."""
        shown = ["round", "accuracy", "attack_success", "recall", "precision", "fpr", "rejected"]
        table = (
            self.rounds[shown]
            .tail(10)
            .to_html(index=False, na_rep="–", float_format="{:.3f}".format)
        )
        return f"<p>{html.escape(repr(self))}</p>{table}"

    def _ended(self) -> str:
        last = self.rounds.iloc[-1]
        figures = {"accuracy": last["accuracy"], "attack success": last["attack_success"]}
        defined = [f"{name} {value:.1%}" for name, value in figures.items() if pd.notna(value)]
        reason = self.summary.get("stopped_because")
        stopped = [f"stopped: {reason}"] if reason else []
        return ", ".join([f"{len(self.rounds)} rounds", *stopped, *defined])

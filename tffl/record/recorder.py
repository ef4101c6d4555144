"""What the round loop asks of a recorder; as it is, it keeps the tables of a run in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.callbacks.base import Callback, Round
from tffl.record.tables import RunTables

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from tffl.defenses.exports import DetectorExport


class Recorder(Callback):
    """Keeps the rows of a run and nothing else, for runs without an output folder.

    It is the first callback of a run, so that a round is in the tables when the others receive it.

    Attributes:
      path: The run directory, if there is one.
      tables: What is in `rounds.csv` and `clients.csv`, or would be.
      callbacks: It, and whoever draws what it has written.
    """

    def __init__(self, path: Path | None = None, tables: RunTables | None = None) -> None:
        self.path = path
        self.tables = tables or RunTables()
        self.callbacks: list[Callback] = [self]

    def round(self, round: Round) -> None:
        """Adds a round to both tables."""
        self.write_round(round.row, round.client_rows)

    def write_round(
        self, round_row: Mapping[str, Any], client_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a round: its row of `ROUND_COLUMNS`, and one of `CLIENT_COLUMNS` per client."""
        self.tables.append(round_row, client_rows)

    def change_round(self, round_row: Mapping[str, Any]) -> None:
        """Replaces the row of the last round in `rounds.csv`."""
        self.tables.rounds.append(int(round_row["round"]), [round_row])

    def frames(self, first: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns `rounds.csv` and `clients.csv` as pandas reads them, from round `first` on."""
        return self.tables.frames(first)

    def load_checkpoint(
        self, warn: Callable[[str], None]
    ) -> tuple[int, np.ndarray, dict[str, np.ndarray]] | None:
        """Returns the last round that needs no repetition, its weights `[models, d]` and memory.

        Args:
          warn: Called with one line for every checkpoint that is damaged.
        """
        return None

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a further CSV file, `name`; `rows` is not empty."""

    def save_checkpoint(
        self, round: int, weights: np.ndarray, memory: Mapping[str, np.ndarray]
    ) -> None:
        """Keeps what the next round starts from: weights `[models, d]` and memory."""

    def finish(
        self,
        model: keras.Model,
        summary: Mapping[str, Any],
        detectors: Mapping[str, DetectorExport],
    ) -> None:
        """Keeps what comes after the last round."""

"""What the round loop asks of a recorder, and a recorder that keeps a run in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tffl.core.updates import Updates
from tffl.core.verdict import Shown
from tffl.record.tables import RunTables

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from tffl.defenses.exports import DetectorExport


class RoundListener(Protocol):
    """Hears of every round once it is in the tables, before there is a checkpoint of it."""

    def round_written(self, round: int) -> None:
        """Hears that a round, 1-based, has been written."""


class Recorder(Protocol):
    """Records a run, round by round, in the order of these methods."""

    @property
    def path(self) -> Path | None:
        """The run directory, if there is one."""

    @property
    def listeners(self) -> Sequence[RoundListener]:
        """Who hears of a round after `write_round`, in this order."""

    def load_checkpoint(
        self, warn: Callable[[str], None]
    ) -> tuple[int, np.ndarray, dict[str, np.ndarray]] | None:
        """Returns the last round that needs no repetition, its weights `[models, d]` and memory.

        Args:
          warn: Called with one line for every checkpoint that is damaged.
        """

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a further CSV file, `name`; `rows` is not empty."""

    def store_updates(self, updates: Updates) -> None:
        """Keeps a round's updates, if they are wanted."""

    def store_pictures(self, round: int, client_ids: np.ndarray, shown: Sequence[Shown]) -> None:
        """Keeps what a defense shows of a round's clients int64 `[n]`."""

    def store_deviations(
        self, round: int, client_ids: np.ndarray, deviations: np.ndarray, names: Sequence[str]
    ) -> None:
        """Keeps what `tffl.core.deviations.deviations` returned; `names` are the variables'."""

    def write_round(
        self, round_row: Mapping[str, Any], client_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a round: its row of `ROUND_COLUMNS`, and one of `CLIENT_COLUMNS` per client."""

    def save_checkpoint(
        self, round: int, weights: np.ndarray, memory: Mapping[str, np.ndarray]
    ) -> None:
        """Keeps what the next round starts from: weights `[models, d]` and memory."""

    def frames(self, first: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns `rounds.csv` and `clients.csv` as pandas reads them, from round `first` on."""

    def finish(
        self,
        model: keras.Model,
        summary: Mapping[str, Any],
        detectors: Mapping[str, DetectorExport],
    ) -> None:
        """Keeps what comes after the last round."""


class MemoryRecorder:
    """Keeps the rows of a run and nothing else, for runs without an output folder."""

    path: Path | None = None
    listeners: Sequence[RoundListener] = ()

    def __init__(self) -> None:
        self._tables = RunTables()

    def load_checkpoint(
        self, warn: Callable[[str], None]
    ) -> tuple[int, np.ndarray, dict[str, np.ndarray]] | None:
        """Returns None: the run starts at round 1."""
        return None

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Does nothing."""

    def store_updates(self, updates: Updates) -> None:
        """Does nothing."""

    def store_pictures(self, round: int, client_ids: np.ndarray, shown: Sequence[Shown]) -> None:
        """Does nothing."""

    def store_deviations(
        self, round: int, client_ids: np.ndarray, deviations: np.ndarray, names: Sequence[str]
    ) -> None:
        """Does nothing."""

    def write_round(
        self, round_row: Mapping[str, Any], client_rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a round: its row of `ROUND_COLUMNS`, and one of `CLIENT_COLUMNS` per client."""
        self._tables.append(round_row, client_rows)

    def save_checkpoint(
        self, round: int, weights: np.ndarray, memory: Mapping[str, np.ndarray]
    ) -> None:
        """Does nothing: there is nowhere to resume from."""

    def frames(self, first: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns `rounds.csv` and `clients.csv` as pandas reads them, from round `first` on."""
        return self._tables.frames(first)

    def finish(
        self,
        model: keras.Model,
        summary: Mapping[str, Any],
        detectors: Mapping[str, DetectorExport],
    ) -> None:
        """Does nothing."""

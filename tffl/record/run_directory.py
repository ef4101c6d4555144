"""The folder of a run, and how it is read; `tffl.record.writer` writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.config import Config, load
from tffl.core.deviations import Deviations
from tffl.core.errors import UsageError, require
from tffl.core.layout import Entry, WeightLayout
from tffl.core.tensors import read_tensors
from tffl.core.updates import Updates
from tffl.core.verdict import Shown
from tffl.record.shown import from_arrays
from tffl.record.tables import RunTables

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINTS = "checkpoints"
"""Folder of what a run continues from."""

UPDATES = "updates"
"""Folder of stored updates."""

DEVIATIONS = "deviations"
"""Folder of how far each client's variables were from the others'."""

PICTURES = "heat_maps"
"""Folder of what a defense looked at."""

FIGURES = "figures"
"""Folder of what a person looks at."""


@dataclass(frozen=True)
class RunDirectory:
    """A folder that holds one run. `open` one to read it; `RunWriter` writes one.

    Attributes:
      path: The folder.
      config: The experiment.
      tables: `rounds.csv` and `clients.csv`.
    """

    path: Path
    config: Config
    tables: RunTables

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Opens a run to read it.

        Raises:
          UsageError: The folder holds no run.
          TfflError: A table is damaged.
        """
        path = Path(path)
        if not (path / "config.toml").is_file():
            inner = sorted(str(file.parent) for file in path.glob("*/config.toml"))
            hint = f"did you mean {' or '.join(inner)}?" if inner else "check the path"
            raise UsageError(f"{path} holds no run (no config.toml): {hint}")
        return cls(path, load(path / "config.toml"), RunTables.read(path))

    def frames(self, first: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns `rounds.csv` and `clients.csv` as pandas reads them, from round `first` on."""
        return self.tables.frames(first)

    def draws_pictures(self, round: int) -> bool:
        """Says whether the config wants pictures of what a defense looked at in a round."""
        return self.config.record.draws_pictures(round, self.config.federation.rounds)

    def shown(self, round: int) -> tuple[np.ndarray, tuple[Shown, ...]]:
        """Returns the ids int64 `[n]` of a round's clients, and what the defense showed of them.

        Both are empty if it showed nothing.

        Raises:
          TfflError: The file is damaged.
        """
        file = round_file(self.path / PICTURES, round)
        if not file.exists():
            return np.zeros(0, np.int64), ()
        arrays, _ = read_tensors(file)
        return arrays["client_ids"], from_arrays(arrays)

    def deviations(self) -> list[Deviations]:
        """Reads the deviations of all rounds that have them, in order.

        Raises:
          TfflError: A file is damaged.
        """
        return [_read_deviations(file) for file in round_files(self.path / DEVIATIONS).values()]

    def updates(self) -> Iterator[Updates]:
        """Reads the stored updates, one round at a time, in order.

        Raises:
          TfflError: A file is damaged.
        """
        for file in round_files(self.path / UPDATES).values():
            yield load_updates(file)

    def stored(self, round: int) -> Updates:
        """Reads the stored updates of one round.

        Raises:
          UsageError: They were not stored.
          TfflError: The file is damaged.
        """
        return load_updates(self.check_stored(round))

    def check_stored(self, round: int) -> Path:
        """Returns the file with the stored updates of one round.

        Raises:
          UsageError: They were not stored.
        """
        files = round_files(self.path / UPDATES)
        have = f"it has those of {', '.join(map(str, files))}" if files else "it has none"
        require(
            round in files,
            f"{self.path} stores no updates of round {round}: {have}; run it with --store-updates",
        )
        return files[round]


def load_updates(path: Path) -> Updates:
    """Reads a round's updates from `RUN/updates/round-….safetensors`.

    Raises:
      TfflError: The file is missing or damaged.
    """
    tensors, header = read_tensors(Path(path))
    entries = json.loads(header["layout"])
    layout = WeightLayout(tuple(Entry(name, tuple(shape), flag) for name, shape, flag in entries))
    matrix = tensors.pop("deltas")
    arrays: dict[str, Any] = {**tensors}
    return Updates(round=int(header["round"]), layout=layout, matrix=matrix, **arrays)


def round_files(folder: Path) -> dict[int, Path]:
    """Returns round → file of a folder of `round-000001.safetensors`, by ascending round."""
    found = {}
    for file in folder.glob("round-*.safetensors"):
        if match := re.fullmatch(r"round-(\d+)\.safetensors", file.name):
            found[int(match[1])] = file
    return dict(sorted(found.items()))


def picture_files(folder: Path, round: int) -> list[tuple[str, Path]]:
    """Returns names and files of a round's pictures, such as `heat_maps_round_0003.png`."""
    end = f"_round_{round:04d}.png"
    return [(file.name.removesuffix(end), file) for file in sorted(folder.glob(f"*{end}"))]


def round_file(folder: Path, round: int) -> Path:
    """Returns where a folder keeps its file of a round, whether that is there or not."""
    return folder / f"round-{round:06d}.safetensors"


def _read_deviations(path: Path) -> Deviations:
    tensors, header = read_tensors(path)
    names = tuple(json.loads(header["names"]))
    return Deviations(int(header["round"]), tensors["client_ids"], names, tensors["deviations"])

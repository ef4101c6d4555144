"""A folder of clients' models as the updates of one round."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.core.updates import Updates
from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.read import read_model
from tffl.untrusted.refusal import Refused


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds.

    Attributes:
      names: The models that could be read, by name; client i of `updates` is `names[i]`.
      updates: Their weights minus the global ones.
      refused: Name of every other file or folder → why it is no model.
    """

    names: tuple[str, ...]
    updates: Updates
    refused: Mapping[str, str]


def file_names(folder: Path) -> list[str]:
    """Returns the names of all that is in a folder, hidden files too, sorted.

    Raises:
      UsageError: There is no such folder, or it cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from None


def read_folder(folder: Path, expected: ExpectedVariables, start: np.ndarray) -> ModelFolder:
    """Reads every model in a folder; nothing that is wrong with one keeps it from the others.

    Every client counts for one sample, as nobody can prove how many it has.

    Args:
      folder: One file or SavedModel folder per client. Folders within are not searched.
      expected: What a client's file has to hold.
      start: The global weights, float32 `[d]`.

    Raises:
      UsageError: There is no such folder, or the global weights are not finite.
    """
    require(bool(np.isfinite(start).all()), "the global model holds NaN or infinity")
    entries = file_names(folder)
    # Allocated at once, since two of it may not fit into memory; pages not written to take none.
    matrix = np.empty((len(entries), expected.layout.size), dtype=np.float32)
    names: list[str] = []
    refused: dict[str, str] = {}
    for name in entries:
        try:
            weights = read_model(folder / name, expected)
        except Refused as error:
            refused[name] = str(error)
            continue
        with np.errstate(over="ignore"):  # not finite then, which every defense notices
            np.subtract(weights, start, out=matrix[len(names)])
        names.append(name)
    ids = np.arange(len(names))
    counts = np.ones(len(names), dtype=np.int64)
    rows = matrix[: len(names)]
    return ModelFolder(tuple(names), Updates(1, ids, counts, start, rows, expected.layout), refused)

"""A folder of clients' models, read as the updates of one round."""

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
    """The content of a folder of clients' models.

    Attributes:
      names: The names of the models that could be read; row i of `updates` is `names[i]`.
      updates: Their weights minus the global weights.
      refused: Name of every other file or folder → why it was refused.
    """

    names: tuple[str, ...]
    updates: Updates
    refused: Mapping[str, str]


def file_names(folder: Path) -> list[str]:
    """Returns the sorted names of everything in a folder, hidden files included.

    Raises:
      UsageError: The folder does not exist or cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from None


def read_folder(folder: Path, expected: ExpectedVariables, start: np.ndarray) -> ModelFolder:
    """Reads every model in a folder; a faulty file does not affect the others.

    Every client counts as one sample, because none can prove how many it has.

    Args:
      folder: A folder with one file or SavedModel folder per client. Other subfolders are not
        searched.
      expected: The variables that a client's file must hold.
      start: The global weights, float32 `[d]`.

    Raises:
      UsageError: The folder does not exist, or the global weights are not finite.
    """
    require(bool(np.isfinite(start).all()), "the global model holds NaN or infinity")
    entries = file_names(folder)
    # One allocation, because two copies may not fit into memory; unused pages take no memory.
    matrix = np.empty((len(entries), expected.layout.size), dtype=np.float32)
    names: list[str] = []
    refused: dict[str, str] = {}
    for name in entries:
        try:
            weights = read_model(folder / name, expected)
        except Refused as error:
            refused[name] = str(error)
            continue
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which defenses reject
            np.subtract(weights, start, out=matrix[len(names)])
        names.append(name)
    ids = np.arange(len(names))
    counts = np.ones(len(names), dtype=np.int64)
    rows = matrix[: len(names)]
    updates = Updates(1, ids, counts, start, rows, expected.layout).read_only()
    return ModelFolder(tuple(names), updates, refused)

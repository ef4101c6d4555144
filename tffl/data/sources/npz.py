"""`FILE.npz`: arrays `x_train`, `y_train`, `x_test`, `y_test`, and `clients` if there are any.

The test part may be missing. Nothing in a file is ever unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tffl.core.errors import UsageError, first_line, require
from tffl.data.arrays import from_arrays
from tffl.data.federation import Dataset
from tffl.data.sources.base import OwnData

NAMES = ("x_train", "y_train", "x_test", "y_test", "clients")


@dataclass(frozen=True)
class NpzFile(OwnData):
    """Arrays in a file of NumPy's."""

    def check_prepared(self, data_dir: Path | None) -> None:
        """Raises `UsageError` unless the file has the arrays."""
        self._names()

    def load(self, data_dir: Path | None) -> Dataset:
        """Reads the arrays."""
        arrays = {name: self._array(name) for name in self._names()}
        test = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
        return from_arrays(
            self.name,
            (arrays["x_train"], arrays["y_train"]),
            test,
            clients=arrays.get("clients"),
            test_share=self.config.test_share,
        )

    def _names(self) -> list[str]:
        """Returns the names of the arrays that count."""
        with self._open() as file:
            names = [name for name in NAMES if name in file]
        missing = [name for name in NAMES[:2] if name not in names]
        require(
            not missing,
            f"{self.path} has no array {', '.join(missing)}: it should hold x_train, y_train, "
            "x_test and y_test",
        )
        require(
            ("x_test" in names) == ("y_test" in names),
            f"{self.path} has one of x_test and y_test: give both, or neither",
        )
        return names

    def _array(self, name: str) -> np.ndarray:
        try:
            with self._open() as file:
                return file[name]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = first_line(error)
            if "allow_pickle" in reason:
                reason = "it holds Python objects, which are never unpickled; store numbers"
            raise UsageError(f"{self.path}: {name} cannot be read: {reason}") from None

    def _open(self) -> Any:
        try:
            file = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            # NumPy takes any other file for a pickle, and advises to load it.
            reason = "it is something else" if "allow_pickle" in str(error) else first_line(error)
            raise UsageError(f"{self.path} cannot be read as an .npz file: {reason}") from None
        require(hasattr(file, "files"), f"{self.path} is one array, and no .npz file of several")
        return file

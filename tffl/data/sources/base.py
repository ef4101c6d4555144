"""What data at a path have in common with the datasets that have a name: four methods."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tffl.config import DataConfig
from tffl.data.federation import Dataset


@dataclass(frozen=True)
class OwnData:
    """Data at a path, which need no preparation.

    Attributes:
      path: A file or a folder that exists.
      config: How to read it.
    """

    path: Path
    config: DataConfig

    reference: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """What messages and pages call it: never the name of a registered dataset."""
        return f"{self.path.name}/" if self.path.is_dir() else self.path.name

    def prepared(self, data_dir: Path | None) -> bool:
        """Returns True: it is there."""
        return True

    def location(self, data_dir: Path | None) -> Path:
        """Returns where it is."""
        return self.path

    def prepare(self, data_dir: Path | None) -> Path:
        """Returns where it is; there is nothing to download."""
        return self.path

    def check_prepared(self, data_dir: Path | None) -> None:
        """Raises `UsageError` for what a short look shows; imports no TensorFlow."""

    @abstractmethod
    def load(self, data_dir: Path | None) -> Dataset:
        """Reads it.

        Raises:
          UsageError: It holds nothing that can be trained on; one line says what is wrong.
        """

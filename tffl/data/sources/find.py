"""Which kind of data lies at a path: told by what is on the disk."""

from __future__ import annotations

from pathlib import Path

from tffl.config import DataConfig
from tffl.core.errors import UsageError
from tffl.data.sources.base import OwnData

ENDINGS = (".npz", ".csv", ".parquet")


def is_path(name: str) -> bool:
    """Says whether the name of a dataset that is not registered is meant as a path."""
    path = Path(name)
    first = name.partition("/")[0]
    return path.suffix.lower() in ENDINGS or first in ("", ".", "..", "~") or path.exists()


def at_path(config: DataConfig) -> OwnData:
    """Returns what reads the data at the path that `config.dataset` is.

    Raises:
      UsageError: Nothing is there, or nothing that can be read.
    """
    path = Path(config.dataset).expanduser()
    if not path.exists():
        raise UsageError(
            f"there is no file or folder {path}: give a path, or a name of tffl list datasets"
        )
    return _kind(path)(path, config)


def _kind(path: Path) -> type[OwnData]:
    """Imports what reads a kind of data, and only that."""
    if path.is_dir():
        from tffl.data.sources.folder import ImageFolder
        from tffl.data.sources.tfds_directory import MARK, TfdsDirectory

        return TfdsDirectory if (path / MARK).is_file() else ImageFolder
    ending = path.suffix.lower()
    if ending == ".npz":
        from tffl.data.sources.npz import NpzFile

        return NpzFile
    if ending in ENDINGS:
        from tffl.data.sources.table import Table

        return Table
    raise UsageError(
        f"{path} is no kind of file that can be read: give a folder of images, or a file that ends "
        "in .npz, .csv or .parquet"
    )

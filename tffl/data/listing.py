"""The datasets that can be named, and where those are that are prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tffl.data import datasets
from tffl.data.build import dataset_source
from tffl.data.tfds import resolve_data_dir


def list_datasets(data_dir: Path | None) -> list[dict[str, Any]]:
    """Returns the registered datasets, and their variants that are prepared.

    Args:
      data_dir: Folder of prepared datasets; TFDS's own or `TFFL_DATA_DIR` if None.

    Returns:
      For each `name`, `summary`, whether it is `prepared`, and its `location`, None if it is not.
    """

    def described(name: str) -> list[dict[str, Any]]:
        return [_entry(one, data_dir) for one in [name, *_variants(name, data_dir)]]

    return [entry for entries in datasets.usable(described) for entry in entries]


def prepare_datasets(
    names: Sequence[str], data_dir: Path | None
) -> Iterator[tuple[str, bool, Any]]:
    """Downloads datasets that are not prepared yet, and writes them to disk.

    Yields:
      Name, whether it was prepared before, and where it is.

    Raises:
      UsageError: A name is unknown; before the first download.
      TfflError: A dataset cannot be downloaded or written.
    """
    sources = [dataset_source(name) for name in names]
    for name, source in zip(names, sources, strict=True):
        ready = source.prepared(data_dir)
        yield name, ready, source.prepare(data_dir)


def _variants(name: str, data_dir: Path | None) -> list[str]:
    """Returns the prepared variants of a dataset, such as `"gtsrb/64x64"`."""
    if "variant" not in datasets.describe(name)["options"]:
        return []
    found = (resolve_data_dir(data_dir) / name).glob("*x*/*.*.*/dataset_info.json")
    return sorted({f"{name}/{path.parents[1].name}" for path in found})


def _entry(name: str, data_dir: Path | None) -> dict[str, Any]:
    source = dataset_source(name)
    ready = source.prepared(data_dir)
    return {
        "name": name,
        "summary": datasets.describe(name.partition("/")[0])["summary"],
        "prepared": ready,
        "location": str(source.location(data_dir)) if ready else None,
    }

"""`.weights.h5`: what `model.save_weights` writes, and what a `.keras` file holds.

Only plain arrays are read: hard links, stored in one piece inside the file, complete. So there is
nothing to inflate, no filter to load, and no other file to open. Attributes are not read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tffl.core.errors import TfflError
from tffl.core.layout import is_floating
from tffl.untrusted.expected import Expected, is_counter
from tffl.untrusted.refusal import Refused, shown

if TYPE_CHECKING:
    import keras

    from tffl.core.layout import Entry

MAGIC = b"\x89HDF\r\n\x1a\n"

COMPILED, SEEDS = ("optimizer", "metrics"), "seed_generator"
"""Groups of what a model is compiled with, of which tf-keras stores the metrics too, and of the
random state of layers such as Dropout, which Keras stores in some versions: neither looked at nor
complained of."""

ATTRIBUTES = ("backend", "keras_version")
"""Of the whole file; files of Keras 3 have none, and older ones these."""

DIGITS = 256
"""As large a base as bfloat16, the least precise of all, holds exactly."""

DEPTH = 100
OBJECTS = 10_000
"""Most groups within groups, and groups and arrays in all: a group may contain itself."""


def read(content: bytes, expected: Expected) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.weights.h5`, by variable.

    Raises:
      Refused: It is no such file, or something in it is not as expected.
    """
    import h5py

    if not content.startswith(MAGIC):
        raise Refused("is no HDF5 file")
    try:
        file = h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise Refused(f"is no readable HDF5 file: {error}") from None
    with file:
        _check_no_config(file)
        found = {
            path: dataset
            for path, dataset in datasets(file)
            if path in expected.h5_paths or not is_counter(dataset.dtype)
        }
        expected.check_names(found, expected.h5_paths)
        places = dict(zip(expected.layout.entries, expected.h5_paths, strict=True))
        _check_distinct(found, places)
        return {
            entry.name: _array(found[path], entry, expected, len(content))
            for entry, path in places.items()
        }


def _check_no_config(file: Any) -> None:
    """Raises `Refused` for a whole model, whose config in an attribute may hold code."""
    unusual = sorted(set(file.attrs) - set(ATTRIBUTES))
    if unusual:
        raise Refused(
            f"has an attribute {shown(unusual[0])}, as whole models in Keras' old format have: "
            "loading it could run code, so save weights only, or a .keras file"
        )


def datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Yields path and h5py dataset of every array that is a weight.

    Raises:
      Refused: There is a link, anything but groups and arrays, or too much.
    """
    import h5py

    count, open_groups = 0, [("", file)]
    while open_groups:
        path, group = open_groups.pop()
        for name in group:
            inner, count = f"{path}{name}", count + 1
            if name == SEEDS or inner in COMPILED:
                continue
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{shown(inner)} is a link to elsewhere")
            if count > OBJECTS or inner.count("/") > DEPTH:
                raise Refused("holds too many groups, or a group that contains itself")
            value = group[name]
            if isinstance(value, h5py.Group):
                open_groups.append((f"{inner}/", value))
            elif isinstance(value, h5py.Dataset):
                yield inner, value
            else:
                raise Refused(f"{shown(inner)} is neither a group nor an array")


def keras_paths(model: keras.Model) -> tuple[str, ...]:
    """Returns where Keras stores each of a trusted model's floating-point weights, in their order.

    Keras tells it itself: it saves the model with the number of each variable in place of its
    values, digit by digit, and the values are put back.
    """
    before = model.get_weights()
    count = sum(map(is_floating, model.weights))
    numbers: dict[str, int] = {}
    base = 1
    try:
        while base == 1 or base < count:
            for path, digit in _saved_digits(model, base).items():
                numbers[path] = numbers.get(path, 0) + base * digit
            base *= DIGITS
    finally:
        model.set_weights(before)
    ordered = sorted(numbers, key=lambda path: numbers[path])
    if [numbers[path] for path in ordered] != list(range(count)):
        raise TfflError(f"{model.name} has variables that Keras does not save one by one")
    return tuple(ordered)


def _saved_digits(model: keras.Model, base: int) -> dict[str, int]:
    """Returns path → one digit of the number of the variable that Keras stores there."""
    import h5py

    floating = [variable for variable in model.weights if is_floating(variable)]
    for number, variable in enumerate(floating):
        variable.assign(np.full(variable.shape, number // base % DIGITS))
    with TemporaryDirectory(prefix="tffl-") as folder:
        path = Path(folder) / "numbered.weights.h5"
        model.save_weights(path)
        with h5py.File(path, "r") as file:
            return {
                name: _first_number(dataset[()])
                for name, dataset in datasets(file)
                if not is_counter(dataset.dtype)
            }


def _first_number(values: np.ndarray) -> int:
    flat = np.ravel(values)
    return int(flat.view(ml_dtypes.bfloat16)[0] if flat.dtype.kind == "V" else flat[0])


def _check_distinct(found: dict[str, Any], places: dict[Entry, str]) -> None:
    """Raises `Refused` if two variables are one array under two names."""
    import h5py

    owners: dict[Any, str] = {}
    for entry, path in places.items():
        other = owners.setdefault(h5py.h5o.get_info(found[path].id).addr, entry.name)
        if other != entry.name:
            raise Refused(f"{other} and {entry.name} are the same array")


def _array(dataset: Any, entry: Entry, expected: Expected, size: int) -> np.ndarray:
    """Reads an array after a look at its type, shape and storage."""
    import h5py

    expected.check(entry, dataset.shape, dataset.dtype)
    properties = dataset.id.get_create_plist()
    if properties.get_external_count():
        raise Refused(f"{entry.name} is stored in another file")
    layout = properties.get_layout()
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise Refused(
            f"{entry.name} is stored in chunks or virtually: Keras stores it in one piece"
        )
    needed = entry.size * dataset.dtype.itemsize
    end = needed + (dataset.id.get_offset() or 0 if layout == h5py.h5d.CONTIGUOUS else 0)
    if dataset.id.get_storage_size() != needed or end > size:
        raise Refused(f"{entry.name} is incomplete")
    return np.asarray(dataset[()])

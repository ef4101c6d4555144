"""The paths under which Keras stores a model's variables in a `.weights.h5` file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tffl.core.errors import TfflError
from tffl.core.layout import is_floating
from tffl.untrusted.refusal import Refused, printable
from tffl.untrusted.server_variables import is_server_variable

if TYPE_CHECKING:
    import keras

COMPILED, SEEDS = ("optimizer", "metrics"), "seed_generator"
"""Ignored groups: the optimizer and metrics of a compiled model (tf-keras stores both), and the
random state of layers such as Dropout (some versions of Keras store it)."""

BASE = 256
"""The base in which variables are numbered: bfloat16, the least precise type, holds its digits."""

MAX_DEPTH = 100
MAX_OBJECTS = 10_000
"""Limits on nested groups, and on groups and arrays in total: a group may contain itself."""

TOO_MANY = "holds too many groups, or a group that contains itself"


def weight_datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Yields the path and the h5py dataset of every weight in an open HDF5 file.

    Raises:
      Refused: The file holds a link, something other than groups and arrays, or too many objects.
    """
    import h5py

    count, pending, visited = 0, [("", file)], set()
    while pending:
        path, group = pending.pop()
        for name in group:
            inner, count = f"{path}{name}", count + 1
            if name == SEEDS or inner in COMPILED:
                continue
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{printable(inner)} is a link to another place")
            if count > MAX_OBJECTS or inner.count("/") > MAX_DEPTH:
                raise Refused(TOO_MANY)
            value = group[name]
            if isinstance(value, h5py.Group):
                address = h5py.h5o.get_info(value.id).addr
                if address in visited:
                    raise Refused(TOO_MANY)
                visited.add(address)
                pending.append((f"{inner}/", value))
            elif isinstance(value, h5py.Dataset):
                yield inner, value
            else:
                raise Refused(f"{printable(inner)} is neither a group nor an array")


def h5_paths_of(model: keras.Model) -> tuple[str, ...]:
    """Returns the path of each floating-point weight of a trusted model, in the model's order.

    Every variable is filled with its own number, digit by digit, and Keras saves the model: the
    number found under a path says which variable is stored there. The weights are then restored.

    Raises:
      TfflError: Keras does not save each variable of the model under a path of its own.
    """
    before = model.get_weights()
    count = sum(map(is_floating, model.weights))
    numbers: dict[str, int] = {}
    base = 1
    try:
        while base == 1 or base < count:
            for path, digit in _saved_digits(model, base).items():
                numbers[path] = numbers.get(path, 0) + base * digit
            base *= BASE
    finally:
        model.set_weights(before)
    ordered = sorted(numbers, key=lambda path: numbers[path])
    if [numbers[path] for path in ordered] != list(range(count)):
        raise TfflError(f"{model.name} has variables that Keras does not save separately")
    return tuple(ordered)


def _saved_digits(model: keras.Model, base: int) -> dict[str, int]:
    """Returns path → one digit of the number of the variable that is stored there."""
    import h5py

    floating = [variable for variable in model.weights if is_floating(variable)]
    for number, variable in enumerate(floating):
        variable.assign(np.full(variable.shape, number // base % BASE))
    with TemporaryDirectory(prefix="tffl-") as folder:
        path = Path(folder) / "numbered.weights.h5"
        model.save_weights(path)
        with h5py.File(path, "r") as file:
            return {
                name: _first_number(dataset[()])
                for name, dataset in weight_datasets(file)
                if not is_server_variable(dataset.dtype)
            }


def _first_number(values: np.ndarray) -> int:
    flat = np.ravel(values)
    return int(flat.view(ml_dtypes.bfloat16)[0] if flat.dtype.kind == "V" else flat[0])

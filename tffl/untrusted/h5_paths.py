"""Where Keras stores a model's variables in a `.weights.h5`."""

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
"""Groups of what a model is compiled with, of which tf-keras stores the metrics too, and of the
random state of layers such as Dropout, which Keras stores in some versions: neither looked at nor
complained of."""

DIGITS = 256
"""As large a base as bfloat16, the least precise of all, holds exactly."""

DEPTH = 100
OBJECTS = 10_000
"""Most groups within groups, and groups and arrays in all: a group may contain itself."""

TOO_MUCH = "holds too many groups, or a group that contains itself"


def datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Yields path and h5py dataset of every array that is a weight.

    Raises:
      Refused: There is a link, anything but groups and arrays, or too much.
    """
    import h5py

    count, open_groups, known = 0, [("", file)], set()
    while open_groups:
        path, group = open_groups.pop()
        for name in group:
            inner, count = f"{path}{name}", count + 1
            if name == SEEDS or inner in COMPILED:
                continue
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{printable(inner)} is a link to elsewhere")
            if count > OBJECTS or inner.count("/") > DEPTH:
                raise Refused(TOO_MUCH)
            value = group[name]
            if isinstance(value, h5py.Group):
                place = h5py.h5o.get_info(value.id).addr
                if place in known:
                    raise Refused(TOO_MUCH)
                known.add(place)
                open_groups.append((f"{inner}/", value))
            elif isinstance(value, h5py.Dataset):
                yield inner, value
            else:
                raise Refused(f"{printable(inner)} is neither a group nor an array")


def h5_paths_of(model: keras.Model) -> tuple[str, ...]:
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
                if not is_server_variable(dataset.dtype)
            }


def _first_number(values: np.ndarray) -> int:
    flat = np.ravel(values)
    return int(flat.view(ml_dtypes.bfloat16)[0] if flat.dtype.kind == "V" else flat[0])

"""Where Keras stores a model's variables in a `.weights.h5`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import TfflError
from tffl.untrusted.refusal import Refused, shown

if TYPE_CHECKING:
    import keras

OPTIMIZER, SEEDS = "optimizer", "seed_generator"
"""Groups of a compiled model's optimizer, and of the random state of layers such as Dropout, which
Keras stores in some versions: neither looked at nor complained of."""

DEPTH = 100
OBJECTS = 10_000
"""Most groups within groups, and groups and arrays in all: a group may contain itself."""


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
            if name == SEEDS or inner == OPTIMIZER:
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
    """Returns where Keras stores each of a trusted model's weights, in their order.

    Keras tells it itself: it saves the model once, with the number of each variable in place of
    its values, which are put back.
    """
    import h5py

    before = model.get_weights()
    numbers: dict[str, int] = {}
    with TemporaryDirectory(prefix="tffl-") as folder:
        path = Path(folder) / "numbered.weights.h5"
        try:
            model.set_weights([np.full_like(values, i) for i, values in enumerate(before)])
            model.save_weights(path)
        finally:
            model.set_weights(before)
        with h5py.File(path, "r") as file:
            for name, dataset in datasets(file):
                numbers[name] = int(np.ravel(dataset[()])[0])
    ordered = sorted(numbers, key=lambda name: numbers[name])
    if [numbers[name] for name in ordered] != list(range(len(before))):
        raise TfflError(f"{model.name} has variables that Keras does not save one by one")
    return tuple(ordered)

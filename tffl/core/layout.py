"""Which columns of a flat weight vector belong to which variable of a model.

Variables are matched by their position in `model.weights`: two of them may have one path. Names are
for people, and unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError, unknown

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Entry:
    """One variable: `name` such as `"dense/bias"`, and whether gradients train it."""

    name: str
    shape: tuple[int, ...]
    trainable: bool

    @property
    def size(self) -> int:
        """Number of scalars."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def layer(self) -> str:
        """Name of the layer that owns the variable."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class ServerVariable:
    """An integer or boolean variable, such as a counter: no mean of it means anything.

    It is the server's own, keeps its value, and is no column of the flat vector.

    Attributes:
      name: Such as `"normalization/count"`.
      position: In `model.weights`.
      value: Of the variable's shape and dtype.
    """

    name: str
    position: int
    value: np.ndarray = field(compare=False, repr=False)


@dataclass(frozen=True)
class WeightLayout:
    """Names, shapes and slices of a model's variables in a flat float32 vector of `size` d.

    Trainable and non-trainable variables (BatchNorm statistics) stand in the model's own order.

    Attributes:
      entries: The floating-point variables, whose names are unique.
      server_variables: All others, by position.
    """

    entries: tuple[Entry, ...]
    server_variables: tuple[ServerVariable, ...] = ()

    @classmethod
    def of(cls, model: keras.Model) -> WeightLayout:
        """Reads the layout of a built model."""
        entries, own = [], []
        names = unique_names([variable.path for variable in model.weights])
        for position, (name, variable) in enumerate(zip(names, model.weights, strict=True)):
            if is_floating(variable):
                entries.append(Entry(name, tuple(variable.shape), bool(variable.trainable)))
            else:
                own.append(ServerVariable(name, position, np.array(variable)))
        return cls(tuple(entries), tuple(own))

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """The columns of each entry."""
        ends = np.cumsum([entry.size for entry in self.entries]).tolist()
        return tuple(slice(end - e.size, end) for e, end in zip(self.entries, ends, strict=True))

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Variable name → its columns."""
        return {entry.name: span for entry, span in zip(self.entries, self.spans, strict=True)}

    @cached_property
    def size(self) -> int:
        """Number of columns, d."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def trainable(self) -> np.ndarray:
        """Bool `[d]`: which columns gradients train."""
        return np.repeat([e.trainable for e in self.entries], [e.size for e in self.entries])

    @cached_property
    def trainable_spans(self) -> list[slice]:
        """The trainable columns, as few slices as possible."""
        edges = np.flatnonzero(np.diff(self.trainable.astype(np.int8), prepend=0, append=0))
        return [slice(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]

    @property
    def final_layer(self) -> str:
        """Name of the last layer with trainable weights: the one that makes the logits."""
        return [entry.layer for entry in self.entries if entry.trainable][-1]

    @property
    def final_bias(self) -> slice:
        """Columns of the final layer's bias.

        Raises:
          UsageError: The final layer has no bias.
        """
        name = f"{self.final_layer}/bias"
        if name not in self.slices:
            raise UsageError(f"the final layer {self.final_layer} has no bias")
        return self.slices[name]

    def __getitem__(self, name: str) -> slice:
        """Returns the columns of the variable `name`, such as `"dense/bias"`."""
        if name not in self.slices:
            raise unknown("variable", name, self.slices)
        return self.slices[name]

    def flatten(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Joins what `model.get_weights` gives into a float32 vector `[d]`."""
        own = {variable.position for variable in self.server_variables}
        parts = [array for position, array in enumerate(arrays) if position not in own]
        return np.concatenate([np.asarray(part, dtype=np.float32).ravel() for part in parts])

    def unflatten(self, vector: np.ndarray) -> list[np.ndarray]:
        """Splits a vector `[d]` into one array per variable, as `model.set_weights` wants it."""
        pairs = zip(self.entries, self.spans, strict=True)
        arrays = [vector[span].reshape(entry.shape) for entry, span in pairs]
        for variable in self.server_variables:
            arrays.insert(variable.position, variable.value)
        return arrays


def is_floating(variable: Any) -> bool:
    """Returns whether a Keras variable holds floating-point numbers, of any precision."""
    return "float" in str(variable.dtype)


def unique_names(paths: Sequence[str]) -> list[str]:
    """Returns the paths of variables, in which layers that share a path are numbered.

    Args:
      paths: In the order of `model.weights`, where a layer's own variables stand together.

    >>> unique_names(["conv/kernel", "conv/bias", "conv/kernel", "conv/bias"])
    ['conv/kernel', 'conv/bias', 'conv (2)/kernel', 'conv (2)/bias']
    """
    if len(set(paths)) == len(paths):
        return list(paths)
    taken = {path.rpartition("/")[0] for path in paths}
    runs: Counter[str] = Counter()
    names: list[str] = []
    before, suffix, leaves = None, "", set[str]()
    for path in paths:
        layer, slash, leaf = path.rpartition("/")
        if layer != before or leaf in leaves:
            before, leaves, suffix = layer, set(), _next_number(layer, runs, taken)
        leaves.add(leaf)
        names.append(f"{layer}{suffix}/{leaf}" if slash else f"{leaf}{suffix}")
    return names


def _next_number(layer: str, runs: Counter[str], taken: Collection[str]) -> str:
    """Returns the number of one more layer of that path, for display; of the first one, none."""
    runs[layer] += 1
    while runs[layer] > 1 and f"{layer} ({runs[layer]})" in taken:
        runs[layer] += 1
    return f" ({runs[layer]})" if runs[layer] > 1 else ""


class FlatVariables:
    """Moves between a flat weight tensor and the tensors that `model.stateless_call` wants.

    Seed generators of random layers are variables of a model too, but not weights: they start
    from a seed that is given with every call. Integer and boolean weights start from the values
    that they have when this object is made.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layout = WeightLayout.of(model)
        self._trainable = model.trainable_variables
        self._frozen = model.non_trainable_variables
        floating = [variable for variable in model.weights if is_floating(variable)]
        self._column = {id(variable): number for number, variable in enumerate(floating)}
        self._own = {
            id(model.weights[variable.position]): variable.value
            for variable in self._layout.server_variables
        }

    def split(self, flat: Any, seed: Any = (0, 0)) -> tuple[list[Any], list[Any]]:
        """Returns (trainable, non-trainable) tensors of a float32 `[d]` and uint32 `[2]` seed."""
        import tensorflow as tf

        parts = tf.split(flat, [entry.size for entry in self._layout.entries])
        seed = tf.convert_to_tensor(seed, tf.uint32)

        def tensor(number: int, variable: Any) -> Any:
            key = id(variable)
            if key in self._column:
                part = tf.reshape(parts[self._column[key]], variable.shape)
                return tf.cast(part, variable.dtype)
            if key in self._own:
                return tf.constant(self._own[key])
            return seed + tf.constant([0, number], tf.uint32)

        trainable = [tensor(*each) for each in enumerate(self._trainable)]
        return trainable, [tensor(*each) for each in enumerate(self._frozen)]

    def join(self, trainable: Sequence[Any], frozen: Sequence[Any]) -> Any:
        """Returns the flat tensor float32 `[d]` of what `split` gave."""
        import tensorflow as tf

        found = zip([*self._trainable, *self._frozen], [*trainable, *frozen], strict=True)
        tensors = {id(variable): tensor for variable, tensor in found}
        ordered = [tensors[key] for key in self._column]
        return tf.concat([tf.reshape(tf.cast(t, tf.float32), [-1]) for t in ordered], axis=0)

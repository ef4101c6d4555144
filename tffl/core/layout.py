"""The columns of a flat weight vector that belong to each variable of a model.

Variables are matched by their position in `model.weights`, since two of them may have the same
path. Names are unique, and serve people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tffl.core.errors import UsageError, require, unknown

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Entry:
    """One floating-point variable.

    Attributes:
      name: Such as `"dense/bias"`.
      shape: Of its values.
      trainable: Whether gradients train it.
      dtype: Of the model's variable.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool
    dtype: str = "float32"

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
    """An integer or boolean variable, such as a counter, whose mean over clients is meaningless.

    The server keeps its value, and the flat vector has no column for it.

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
                about = tuple(variable.shape), bool(variable.trainable), str(variable.dtype)
                entries.append(Entry(name, *about))
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
    def positions(self) -> tuple[int, ...]:
        """The position of each entry in `model.weights`."""
        own = {variable.position for variable in self.server_variables}
        count = len(self.entries) + len(self.server_variables)
        return tuple(position for position in range(count) if position not in own)

    @cached_property
    def size(self) -> int:
        """Number of columns, d."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def trainable(self) -> np.ndarray:
        """Bool `[d]`: the columns that gradients train."""
        return np.repeat([e.trainable for e in self.entries], [e.size for e in self.entries])

    @cached_property
    def trainable_spans(self) -> list[slice]:
        """The trainable columns, as few slices as possible."""
        edges = np.flatnonzero(np.diff(self.trainable.astype(np.int8), prepend=0, append=0))
        return [slice(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]

    @property
    def final_layer(self) -> str:
        """Name of the last layer with trainable weights, which computes the logits."""
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
        """Joins the arrays of `model.get_weights` into a float32 vector `[d]`."""
        parts = [np.asarray(arrays[position], dtype=np.float32) for position in self.positions]
        return np.concatenate([part.ravel() for part in parts])

    def with_server_values(self, values: Mapping[int, np.ndarray]) -> WeightLayout:
        """Returns the layout of a model whose integer and boolean variables have other values.

        Args:
          values: Position → value, in the variable's shape.

        Raises:
          UsageError: A value has another shape, or is neither integer nor boolean.
        """
        changed = []
        for variable in self.server_variables:
            value = np.asarray(values.get(variable.position, variable.value))
            require(
                value.shape == variable.value.shape and value.dtype.kind in "iub",
                f"{variable.name} is {value.dtype} {list(value.shape)}: it should be "
                f"{variable.value.dtype} {list(variable.value.shape)}",
            )
            changed.append(replace(variable, value=value.astype(variable.value.dtype)))
        return replace(self, server_variables=tuple(changed))

    def unflatten(self, vector: np.ndarray) -> list[np.ndarray]:
        """Splits a vector `[d]` into one array per variable, as `model.set_weights` takes them."""
        pairs = zip(self.entries, self.spans, strict=True)
        arrays = [vector[span].reshape(entry.shape) for entry, span in pairs]
        for variable in self.server_variables:
            arrays.insert(variable.position, variable.value)
        return arrays


def is_floating(variable: Any) -> bool:
    """Returns whether a Keras variable holds floating-point numbers, of any precision."""
    return "float" in str(variable.dtype)


def unique_names(paths: Sequence[str]) -> list[str]:
    """Returns the paths of variables; layers that share a path are numbered.

    Args:
      paths: In the order of `model.weights`, where the variables of a layer are adjacent.

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
    """Returns the suffix of one more layer of that path, such as " (2)"; empty for the first."""
    runs[layer] += 1
    while runs[layer] > 1 and f"{layer} ({runs[layer]})" in taken:
        runs[layer] += 1
    return f" ({runs[layer]})" if runs[layer] > 1 else ""


class FlatVariables:
    """Calls a model with flat weights, and converts between them and the model's tensors.

    Seed generators of random layers are variables of a model too, but not weights: they start from
    a seed that every call passes. Integer and boolean weights start from the values that they have
    when this object is made.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
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
                return tf.cast(part, variable.dtype)  # as Keras computes with it
            if key in self._own:
                return tf.constant(self._own[key])
            return seed + tf.constant([0, number], tf.uint32)

        trainable = [tensor(*each) for each in enumerate(self._trainable)]
        return trainable, [tensor(*each) for each in enumerate(self._frozen)]

    def call(
        self,
        trainable: Sequence[Any],
        frozen: Sequence[Any],
        inputs: Any,
        *,
        training: bool,
        return_losses: bool = False,
    ) -> Any:
        """Returns the result of `model.stateless_call` with tensors that `split` returned."""
        with self._derived([*trainable, *frozen]):
            return self._model.stateless_call(
                trainable, frozen, inputs, training=training, return_losses=return_losses
            )

    @contextmanager
    def _derived(self, tensors: Sequence[Any]) -> Iterator[None]:
        """Lets layers such as Normalization compute their derived values from these tensors.

        Keras does so only when weights are loaded from a file, not when they are set.
        """
        import keras
        import tensorflow as tf

        deriving = [x for x in self._model._flatten_layers() if hasattr(x, "finalize_state")]
        mapping = zip([*self._trainable, *self._frozen], tensors, strict=True)
        try:
            if deriving:
                with keras.StatelessScope(state_mapping=list(mapping)):
                    for layer in deriving:
                        layer.finalize_state()
            yield
        finally:
            with tf.init_scope():  # restored from the model's own weights, which have not changed
                for layer in deriving:
                    layer.finalize_state()

    def join(self, trainable: Sequence[Any], frozen: Sequence[Any]) -> Any:
        """Returns the flat tensor float32 `[d]` of split tensors; zeros in place of None."""
        import tensorflow as tf

        found = zip([*self._trainable, *self._frozen], [*trainable, *frozen], strict=True)
        tensors = {id(variable): tensor for variable, tensor in found}
        parts = [
            tf.zeros(entry.size) if tensors[key] is None else tf.cast(tensors[key], tf.float32)
            for key, entry in zip(self._column, self._layout.entries, strict=True)
        ]
        return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)

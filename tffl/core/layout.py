"""Which columns of a flat weight vector belong to which variable of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
class WeightLayout:
    """Names, shapes and slices of a model's variables in a flat float32 vector of `size` d.

    Trainable and non-trainable variables (BatchNorm statistics) stand in the model's own order.
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, model: keras.Model) -> WeightLayout:
        """Reads the layout of a built model."""
        return cls(tuple(Entry(v.path, tuple(v.shape), bool(v.trainable)) for v in model.weights))

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Variable name → its columns."""
        ends = np.cumsum([entry.size for entry in self.entries]).tolist()
        return {e.name: slice(end - e.size, end) for e, end in zip(self.entries, ends, strict=True)}

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
        """Joins one array per variable into a float32 vector `[d]`."""
        return np.concatenate([np.asarray(a, dtype=np.float32).ravel() for a in arrays])

    def unflatten(self, vector: np.ndarray) -> list[np.ndarray]:
        """Splits a vector `[d]` into one array per variable, as `model.set_weights` wants it."""
        return [vector[self.slices[e.name]].reshape(e.shape) for e in self.entries]


class FlatVariables:
    """Moves between a flat weight tensor and the tensors that `model.stateless_call` wants.

    Seed generators of random layers are variables of a model too, but not weights: they start
    from a seed that is given with every call.
    """

    def __init__(self, model: keras.Model, layout: WeightLayout | None = None) -> None:
        self._layout = layout or WeightLayout.of(model)
        self._trainable = [variable.path for variable in model.trainable_variables]
        self._frozen = [variable.path for variable in model.non_trainable_variables]

    def split(self, flat: Any, seed: Any = (0, 0)) -> tuple[list[Any], list[Any]]:
        """Returns (trainable, non-trainable) tensors of a float32 `[d]` and uint32 `[2]` seed."""
        import tensorflow as tf

        entries = self._layout.entries
        parts = tf.split(flat, [entry.size for entry in entries])
        named = {e.name: tf.reshape(part, e.shape) for e, part in zip(entries, parts, strict=True)}
        seed = tf.convert_to_tensor(seed, tf.uint32)
        for number, path in enumerate(self._frozen):
            named.setdefault(path, seed + tf.constant([0, number], tf.uint32))
        return [named[path] for path in self._trainable], [named[path] for path in self._frozen]

    def join(self, trainable: Sequence[Any], frozen: Sequence[Any]) -> Any:
        """Returns the flat tensor float32 `[d]` of what `split` gave."""
        import tensorflow as tf

        tensors = [*trainable, *frozen]
        named = dict(zip(self._trainable + self._frozen, tensors, strict=True))
        return tf.concat([tf.reshape(named[e.name], [-1]) for e in self._layout.entries], axis=0)

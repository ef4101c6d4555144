"""What a client's file has to hold: the variables of the user's own, trusted model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from tffl.core.layout import Entry, WeightLayout, is_floating
from tffl.untrusted.allowed_names import AllowedNames
from tffl.untrusted.h5_paths import h5_paths_of
from tffl.untrusted.refusal import Refused, printable

if TYPE_CHECKING:
    import keras

VARIANCES = ("moving_variance", "variance")
"""Last part of the names of variables that no gradient trains and that cannot be negative."""

BYTES = 32
"""Most bytes of a file per weight: twice float64, or float32 with the memory of an optimizer."""

MARGIN = 1 << 24
"""Bytes that a file may have beyond that, for configs, headers and padding."""


@dataclass(frozen=True)
class ExpectedVariables:
    """Names, shapes and places of the variables that a file has to hold.

    Attributes:
      layout: Names, shapes and order of the flat vector.
      h5_paths: Where Keras stores each of them in a `.weights.h5`, in the layout's order.
      paths: Their own names in TensorFlow; several may be the same.
      vocabulary: What the config of a client's model may name.
    """

    layout: WeightLayout
    h5_paths: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    allowed_names: AllowedNames = field(default_factory=AllowedNames)

    @classmethod
    def of(cls, model: keras.Model) -> ExpectedVariables:
        """Finds out what files of a trusted, built model look like.

        Its weights change meanwhile, and are put back: see `tffl.untrusted.h5_paths.h5_paths_of`.
        """
        paths = tuple(variable.path for variable in model.weights if is_floating(variable))
        return cls(WeightLayout.of(model), h5_paths_of(model), paths, AllowedNames.of(model))

    @property
    def limit(self) -> int:
        """Most bytes of a file, as it is stored and as it is inflated."""
        return BYTES * self.layout.size + MARGIN

    def check_names(self, found: Collection[str], expected: Iterable[str] | None = None) -> None:
        """Raises `Refused` unless `found` are the names of the variables, each once.

        Args:
          found: What the file holds.
          expected: What it should hold; the layout's names if None.
        """
        names = [e.name for e in self.layout.entries] if expected is None else list(expected)
        there, known = set(found), set(names)
        missing = [name for name in names if name not in there]
        if missing:
            more = f" and {len(missing) - 1} more variables" if len(missing) > 1 else ""
            raise Refused(f"lacks {missing[0]}{more}")
        if there - known:
            unexpected = printable(min(there - known))
            raise Refused(f"holds {unexpected}, which the global model does not have")
        if len(found) > len(there):
            twice = next(name for name in names if list(found).count(name) > 1)
            raise Refused(f"holds {twice} twice")

    def check(self, entry: Entry, shape: tuple[int, ...] | None, dtype: np.dtype) -> None:
        """Raises `Refused` unless an array, not read yet, can be the variable."""
        if dtype.hasobject:
            raise Refused(f"{entry.name} holds Python objects (a pickle), which are never loaded")
        floating = dtype.kind == "f" and dtype.itemsize in (2, 4, 8)
        if not floating and not (dtype.str[1:] == "V2" and entry.dtype == "bfloat16"):
            raise Refused(f"{entry.name} holds {dtype}: it should be float32, float16 or float64")
        if shape is None or tuple(shape) != entry.shape:
            raise Refused(f"{entry.name} has shape {shape}: it should be {entry.shape}")

    def vector(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Joins arrays that have passed `check` into a finite float32 vector `[d]`.

        Raises:
          Refused: A value is not finite in float32, or a variance is negative.
        """
        result = np.empty(self.layout.size, dtype=np.float32)
        for entry, span in zip(self.layout.entries, self.layout.spans, strict=True):
            part = result[span]
            values = arrays[entry.name].reshape(-1)
            if values.dtype.kind == "V":  # NumPy stores bfloat16 as two bytes that mean nothing
                values = values.view(ml_dtypes.bfloat16)
            with np.errstate(over="ignore", invalid="ignore"):
                part[:] = values
            if not np.isfinite(part).all():
                raise Refused(f"{entry.name} holds NaN or infinity, as float32")
            last = entry.name.rpartition("/")[2]
            if last in VARIANCES and not entry.trainable and (part < 0).any():
                raise Refused(f"{entry.name} holds a negative variance, {part.min():.4g}")
        return result

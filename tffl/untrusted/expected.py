"""The variables that a client's file must hold: those of the user's own, trusted model."""

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
"""The last part of the names of non-trainable variables that cannot be negative."""

BYTES = 32
"""Bytes allowed in a file per weight: room for two float64, or float32 plus optimizer state."""

MARGIN = 1 << 24
"""Bytes allowed in addition, for configs, headers and padding."""


@dataclass(frozen=True)
class ExpectedVariables:
    """The names, shapes and paths of the variables that a file must hold.

    Attributes:
      layout: Names, shapes and order of the variables in the flat vector.
      h5_paths: The path of each variable in a `.weights.h5`, in the layout's order; empty if they
        are unknown.
      paths: The path of each variable in TensorFlow; several variables may share one.
      allowed_names: The classes and functions that the config of a client's model may name.
    """

    layout: WeightLayout
    h5_paths: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    allowed_names: AllowedNames = field(default_factory=AllowedNames)

    @classmethod
    def of(cls, model: keras.Model) -> ExpectedVariables:
        """Returns what files of a trusted, built model must hold.

        The weights of the model change for a moment and are restored: see
        `tffl.untrusted.h5_paths.h5_paths_of`.
        """
        paths = tuple(variable.path for variable in model.weights if is_floating(variable))
        return cls(WeightLayout.of(model), h5_paths_of(model), paths, AllowedNames.of(model))

    @property
    def limit(self) -> int:
        """The largest size of a file in bytes, stored as well as decompressed."""
        return BYTES * self.layout.size + MARGIN

    def check_names(self, found: Collection[str], expected: Iterable[str] | None = None) -> None:
        """Checks that a file holds every variable exactly once and nothing else.

        Args:
          found: The names in the file.
          expected: The names that it must hold; None stands for those of the layout.

        Raises:
          Refused: A name is missing, unexpected or repeated.
        """
        names = [e.name for e in self.layout.entries] if expected is None else list(expected)
        distinct, known = set(found), set(names)
        missing = [name for name in names if name not in distinct]
        if missing:
            more = f" and {len(missing) - 1} more variables" if len(missing) > 1 else ""
            raise Refused(f"lacks {missing[0]}{more}")
        if distinct - known:
            unexpected = printable(min(distinct - known))
            raise Refused(f"holds {unexpected}, which the global model does not have")
        if len(found) > len(distinct):
            twice = next(name for name in names if list(found).count(name) > 1)
            raise Refused(f"holds {twice} twice")

    def check(self, entry: Entry, shape: tuple[int, ...] | None, dtype: np.dtype) -> None:
        """Checks the shape and dtype of an array before its values are read.

        Args:
          entry: The variable that the array stands for.
          shape: The array's shape; None if the file has none.
          dtype: The array's dtype.

        Raises:
          Refused: The array cannot be this variable.
        """
        if dtype.hasobject:
            raise Refused(f"{entry.name} holds Python objects (a pickle), which are never loaded")
        floating = dtype.kind == "f" and dtype.itemsize in (2, 4, 8)
        if not floating and not (dtype.str[1:] == "V2" and entry.dtype == "bfloat16"):
            raise Refused(f"{entry.name} holds {dtype}: it should be float32, float16 or float64")
        if shape is None or tuple(shape) != entry.shape:
            raise Refused(f"{entry.name} has shape {shape}: it should be {entry.shape}")

    def vector(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Joins arrays into one flat vector.

        Args:
          arrays: Variable name → array that has passed `check`.

        Returns:
          Finite weights, float32 `[d]`.

        Raises:
          Refused: A value is not finite as float32, or a variance is negative.
        """
        result = np.empty(self.layout.size, dtype=np.float32)
        for entry, span in zip(self.layout.entries, self.layout.spans, strict=True):
            part = result[span]
            values = arrays[entry.name].reshape(-1)
            if values.dtype.kind == "V":  # NumPy has no bfloat16 and stores two raw bytes
                values = values.view(ml_dtypes.bfloat16)
            with np.errstate(over="ignore", invalid="ignore"):
                part[:] = values
            if not np.isfinite(part).all():
                raise Refused(f"{entry.name} holds NaN or infinity, as float32")
            last = entry.name.rpartition("/")[2]
            if last in VARIANCES and not entry.trainable and (part < 0).any():
                raise Refused(f"{entry.name} holds a negative variance, {part.min():.4g}")
        return result

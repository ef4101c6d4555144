"""Runs named checks one after the other; what fails is one line that begins with the name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tffl.core.errors import first_line, require, unknown
from tffl.core.tensors import read_tensors, write_tensors

Setting = TypeVar("Setting")


def run_checks(
    checks: Mapping[str, Callable[[Setting], None]], setting: Setting, skip: Collection[str]
) -> None:
    """Runs every check that is not skipped.

    Raises:
      AssertionError: A check has failed, or raised something else.
      UsageError: There is no check of a name in `skip`.
    """
    for title in skip:
        if title not in checks:
            raise unknown("check", title, checks)
    for title, check in checks.items():
        if title in skip:
            continue
        try:
            check(setting)
        except AssertionError as error:
            raise AssertionError(f"{title}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{title}: it raises {first_line(error)}") from error


def require_instance(component: Any, cls: type) -> None:
    """Raises `UsageError` unless it can be checked at all: an instance of `cls`, and no class."""
    kind = cls.__name__.lower()
    name = component.__name__ if isinstance(component, type) else type(component).__name__
    what = f"the class {name}: call it" if isinstance(component, type) else f"a {name}"
    require(isinstance(component, cls), f"give a tffl {kind} to check, not {what}")


def expect(condition: Any, message: str) -> None:
    """Raises `AssertionError(message)` unless `condition` holds, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def expect_array(array: Any, dtype: Any, shape: tuple[int, ...], name: str) -> None:
    """Raises `AssertionError` unless it is an array of this dtype and shape."""
    wanted = f"{np.dtype(dtype)} {list(shape)}"
    is_array = isinstance(array, np.ndarray)
    found = f"{array.dtype} {list(array.shape)}" if is_array else f"a {type(array).__name__}"
    expect(found == wanted, f"{name} is {found}, and should be {wanted}")


def stored(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a state as a checkpoint gives it back: written to a file, and read again."""
    for key, value in state.items():
        expect(isinstance(value, np.ndarray), f"state[{key!r}] is a {type(value).__name__}")
        expect(value.dtype.kind in "biuf", f"state[{key!r}] is {value.dtype}: no file holds that")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        write_tensors(path, state, {})
        return read_tensors(path)[0]


def same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Returns whether two states, or the like, are equal to the last bit; NaN equals NaN."""
    return set(one) == set(other) and all(
        np.asarray(one[key]).tobytes() == np.asarray(other[key]).tobytes() for key in one
    )


def copied(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a state whose arrays are copies."""
    return {key: np.array(value) for key, value in state.items()}

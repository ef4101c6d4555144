"""Runs named checks in order; a failure is one line that begins with the name of the check."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tffl.core.errors import first_line, require, unknown
from tffl.core.states import State as State
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates

Options: TypeAlias = Mapping[str, Any]
Case = TypeVar("Case")


READ = ("matrix", "start", "client_ids", "sample_counts")
"""Arrays of `Updates` that attacks and defenses read, and never write to."""


def run_checks(
    component: Any,
    kind: type,
    checks: Mapping[str, Callable[[Case], None]],
    case: Case,
    skip: Collection[str],
) -> None:
    """Runs every check that is not skipped.

    Args:
      component: The attack or defense.
      kind: The base class of which it is an instance.
      checks: Name → function that raises `AssertionError` if the check fails.
      case: What the functions receive.
      skip: Names of checks that do not apply.

    Raises:
      AssertionError: A check has failed, or raised another exception.
      UsageError: The component is not an instance of `kind`, or `skip` holds an unknown name.
    """
    _require_instance(component, kind)
    for title in skip:
        if title not in checks:
            raise unknown("check", title, checks)
    for title, check in checks.items():
        if title in skip:
            continue
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{title}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{title}: it raises {first_line(error)}") from error


def _require_instance(component: Any, kind: type) -> None:
    name = component.__name__ if isinstance(component, type) else type(component).__name__
    what = f"the class {name}: call it" if isinstance(component, type) else f"a {name}"
    expected = f"give a tffl {kind.__name__.lower()} to check"
    require(isinstance(component, kind), f"{expected}, not {what}")


def made(component: Any, name: str, create: Callable[[str, Options], Any], options: Options) -> Any:
    """Makes an attack or defense like another one, with other options.

    Args:
      component: The other one.
      name: As a config calls it; if empty, its class is called.
      create: Makes one from a name and options, as a config's are read.
      options: Of the new one.
    """
    return create(name, options) if name else type(component)(**options)


def expect_same_options(component: Any, make: Callable[[Options], Any]) -> None:
    """Raises `AssertionError` unless an attack's or a defense's options make an equal one.

    Args:
      component: Has a method `options`.
      make: Options → an attack or defense.
    """
    options = component.options()
    expect(make(options) == component, "what options() returns makes another one")
    expect(
        make(json.loads(json.dumps(options))) == component,
        "what options() returns makes another one after it was written to a file",
    )


def expect_reading(
    method: Callable[[Updates, State], State], updates: Updates, state: State, name: str
) -> State:
    """Raises `AssertionError` if a method writes to updates or state; returns its new state.

    Args:
      method: Called with updates whose arrays can be written to, so that the message can name the
        array; elsewhere they are read-only, and writing raises `ValueError`.
      updates: Of a round.
      state: What the component remembers.
      name: The method's, for the message.
    """
    before, remembered = _arrays(updates), copied(state)
    arrays: dict[str, Any] = copied(before)
    mine = replace(updates, **arrays)
    after = method(mine, state)
    for key, array in before.items():
        same = same_arrays({key: array}, {key: getattr(mine, key)})
        expect(same, f"{name} writes to updates.{key}")
    expect(same_arrays(state, remembered), f"{name} writes to the state that it receives")
    return after


def _arrays(updates: Updates) -> dict[str, np.ndarray]:
    return {key: getattr(updates, key) for key in READ}


def expect(condition: Any, message: str) -> None:
    """Raises `AssertionError(message)` unless `condition` holds, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def expect_array(array: Any, dtype: Any, shape: tuple[int, ...], name: str) -> None:
    """Raises `AssertionError` unless `array` has this dtype and shape."""
    wanted = f"{np.dtype(dtype)} {list(shape)}"
    is_array = isinstance(array, np.ndarray)
    found = f"{array.dtype} {list(array.shape)}" if is_array else f"a {type(array).__name__}"
    expect(found == wanted, f"{name} is {found}, and should be {wanted}")


def stored(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a state as a resumed run has it: written to a file, and read again."""
    for key, value in state.items():
        expect(isinstance(value, np.ndarray), f"state[{key!r}] is a {type(value).__name__}")
        expect(value.dtype.kind in "biuf", f"state[{key!r}] is {value.dtype}: no file holds that")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        write_tensors(path, state, {})
        return read_tensors(path)[0]


def same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Returns whether two mappings of arrays are equal to the last bit; NaN equals NaN."""
    return set(one) == set(other) and all(
        np.asarray(one[key]).tobytes() == np.asarray(other[key]).tobytes() for key in one
    )


def copied(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a mapping of copies of the arrays."""
    return {key: np.array(value) for key, value in state.items()}

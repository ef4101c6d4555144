"""What attacks and defenses remember from round to round, and how several states become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

State: TypeAlias = Mapping[str, np.ndarray]
"""What an attack or a defense remembers from round to round; a checkpoint stores the arrays."""


def join(states: Sequence[State] | Mapping[str, State]) -> State:
    """Joins the states of several parts; keys begin with the part's number or name.

    >>> join([{"a": 1}, {}, {"a": 2, "b": 3}])
    {'0/a': 1, '2/a': 2, '2/b': 3}
    >>> join({"krum": {"a": 1}})
    {'krum/a': 1}
    """
    named = states.items() if isinstance(states, Mapping) else enumerate(states)
    return {f"{name}/{key}": state[key] for name, state in named for key in state}


def part(state: State, name: int | str) -> State:
    """Returns the state of one part.

    >>> part({"0/a": 1, "2/a": 2, "2/b": 3}, 2)
    {'a': 2, 'b': 3}
    """
    prefix = f"{name}/"
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}


def replaced(state: State, number: int, own: State) -> State:
    """Returns the joined state after the state of one part is replaced.

    >>> replaced({"0/a": 1, "2/a": 2, "2/b": 3}, 2, {"c": 4})
    {'0/a': 1, '2/c': 4}
    """
    prefix = f"{number}/"
    others = {key: state[key] for key in state if not key.startswith(prefix)}
    return {**others, **{f"{prefix}{key}": own[key] for key in own}}

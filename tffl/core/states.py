"""The memories of several parts in one mapping; keys begin with the part's number or name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

Memory: TypeAlias = Mapping[str, np.ndarray]


def join(states: Sequence[Memory] | Mapping[str, Memory]) -> Memory:
    """Returns the memories of all parts in one mapping.

    >>> join([{"a": 1}, {}, {"a": 2, "b": 3}])
    {'0/a': 1, '2/a': 2, '2/b': 3}
    >>> join({"krum": {"a": 1}})
    {'krum/a': 1}
    """
    named = states.items() if isinstance(states, Mapping) else enumerate(states)
    return {f"{name}/{key}": state[key] for name, state in named for key in state}


def part(state: Memory, name: int | str) -> Memory:
    """Returns one part's memory.

    >>> part({"0/a": 1, "2/a": 2, "2/b": 3}, 2)
    {'a': 2, 'b': 3}
    """
    prefix = f"{name}/"
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}


def replaced(state: Memory, number: int, own: Memory) -> Memory:
    """Returns all memories, after the memory of one part is replaced.

    >>> replaced({"0/a": 1, "2/a": 2, "2/b": 3}, 2, {"c": 4})
    {'0/a': 1, '2/c': 4}
    """
    prefix = f"{number}/"
    others = {key: state[key] for key in state if not key.startswith(prefix)}
    return {**others, **{f"{prefix}{key}": own[key] for key in own}}

"""Options that exclude each other, or that mean something only beside another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tffl.core.errors import require


def belongs_to(option: str, other: str, present: bool) -> None:
    """Refuses an option of the current command that would change nothing without another one.

    Raises:
      UsageError: It was used, and the other one was not.
    """
    source = click.get_current_context().get_parameter_source(option.replace("-", "_"))
    used = source is not None and source.name == "COMMANDLINE"
    require(present or not used, f"--{option} belongs to --{other}: give that too, or leave it out")


def refuse_both(**values: Any) -> None:
    """Refuses two options that contradict each other.

    Args:
      values: The two options and their values; unused ones are None or False.

    Raises:
      UsageError: Both were used.
    """
    first, second = (f"--{name.replace('_', '-')}" for name in values)
    both = all(value not in (None, False) for value in values.values())
    require(not both, f"{first} and {second} exclude each other: choose one")


def refuse_any(values: Mapping[str, Any], why: str) -> None:
    """Refuses options that have no meaning here.

    Args:
      values: Options and their values; unused ones are None, False or empty.
      why: Ends the sentence that begins with the option.

    Raises:
      UsageError: One of them was used.
    """
    for name, value in values.items():
        require(value in (None, (), False), f"--{name.replace('_', '-')} {value} {why}")

"""Options that mean something only beside another one."""

from __future__ import annotations

import click

from tffl.core.errors import require


def belongs_to(option: str, other: str, present: bool) -> None:
    """Refuses an option of the current command that would change nothing without another one.

    Raises:
      UsageError: It was given, and the other one was not.
    """
    source = click.get_current_context().get_parameter_source(option.replace("-", "_"))
    given = source is not None and source.name == "COMMANDLINE"
    require(
        present or not given, f"--{option} belongs to --{other}: give that too, or leave it out"
    )

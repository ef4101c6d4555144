"""What commands print for programs: JSON."""

from __future__ import annotations

import json
from typing import Any

import click


def print_json(value: Any, indent: int | None = 2) -> None:
    """Prints a value as JSON, in which NaN is null, and paths and arrays are text and lists."""
    from tffl.core.jsonable import plain

    click.echo(json.dumps(plain(value), indent=indent, default=str))

"""Options of attacks and defenses: fields of frozen dataclasses, checked when one is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tffl.core.errors import UsageError


@dataclass(frozen=True)
class Options:
    """A frozen dataclass that checks its fields, and converts text such as `"30%"` to numbers.

    A subclass with its own `__post_init__` calls this one first.

    Raises:
      UsageError: A value is out of its range; one line that says what is allowed.
    """

    def __post_init__(self) -> None:
        """Checks every field."""
        check_options(self)


def check_options(made: Any) -> None:
    """Checks a dataclass' fields against their annotations, and converts them in place.

    `"30%"` becomes 0.3 where a fraction is due, and `"krum"` an error.

    Raises:
      UsageError: A value is out of its range; one line that says what is allowed.
    """
    cls: Any = type(made)
    values = {name: _plain(getattr(made, name)) for name in option_names(cls)}
    try:
        checked = _checker(cls).model_validate(values)
    except ValidationError as error:
        raise UsageError(error_line(error)) from None
    for name in values:
        object.__setattr__(made, name, getattr(checked, name))


def option_names(cls: type) -> list[str]:
    """Returns the names of a dataclass' options, in their order."""
    return [field.name for field in fields(cls) if field.init]


def error_line(error: ValidationError, prefix: str = "") -> str:
    """Turns the first error of pydantic into one line: what was passed, and what is allowed."""
    first = error.errors()[0]
    key = prefix + ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "missing":
        return f"{key} is required"
    return f"{key} = {first['input']!r} is not allowed: it should be {reason}"


def count_or_fraction(value: Any) -> Any:
    """Reads `"3"` as a count and `"0.3"` or `"30%"` as a fraction."""
    if not isinstance(value, str):
        return value
    try:
        if value.endswith("%"):
            return float(value[:-1]) / 100
        return int(value) if value.lstrip("+-").isdigit() else float(value)
    except ValueError:
        raise ValueError("a count such as 2, or a fraction such as 0.2 or 20%") from None


def _plain(value: Any) -> Any:
    """Returns a NumPy scalar as a Python number, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def json_schema(cls: Any) -> dict[str, Any]:
    """Returns the allowed values of a dataclass' options, as a JSON schema."""
    return _checker(cls).model_json_schema()


@cache
def _checker(cls: Any) -> type[BaseModel]:
    """Returns the pydantic model that checks a dataclass' fields; cached, as it is slow to make."""
    hints = get_type_hints(cls, include_extras=True)
    types: dict[str, Any] = {name: (hints[name], ...) for name in option_names(cls)}
    return create_model(cls.__name__, __config__=ConfigDict(arbitrary_types_allowed=True), **types)

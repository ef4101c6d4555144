"""A table of options of a dataclass or a function: meaning, allowed values, default."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, NamedTuple

from pydantic import PydanticUserError
from pydantic.errors import PydanticInvalidForJsonSchema

from tffl.core.function_options import function_options, function_schema
from tffl.core.options import json_schema

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
SECTION = re.compile(r"^(?:Attributes|Args):\n((?: .*\n?|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^  (\w+): (.*(?:\n {4,}.*)*)", re.MULTILINE)


class Option(NamedTuple):
    """One option: name, meaning, allowed values, default, and whether it must be set.

    The default is None if the option may stay unset, or must be set.
    """

    name: str
    meaning: str
    allowed: str
    default: Any
    required: bool


def option_table(target: Any, hidden: str = "") -> list[Option]:
    """Returns the options of a dataclass or a function in their order.

    Their meanings are read from `Attributes:` in the docstrings of the class and its bases, or from
    `Args:` in that of the function, the allowed values from the annotations.

    Args:
      target: The dataclass, or a function whose first two parameters are no options.
      hidden: Name of a field that is left out.
    """
    if not (isinstance(target, type) and is_dataclass(target)):
        return [] if isinstance(target, type) else _of_function(target)
    meanings = _meanings(target)
    try:
        schema = json_schema(target).get("properties", {})
    except (PydanticInvalidForJsonSchema, PydanticUserError, NameError, TypeError):
        schema = {}  # a plug-in's annotation that JSON schema cannot express
    return [
        Option(
            field.name,
            meanings.get(field.name, ""),
            allowed(schema.get(field.name, {})),
            _default(field),
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(target)
        if field.init and field.name != hidden
    ]


def _of_function(function: Any) -> list[Option]:
    meanings = _entries(inspect.getdoc(function) or "")
    try:
        schema = function_schema(function).get("properties", {})
    except (PydanticInvalidForJsonSchema, PydanticUserError, TypeError):
        schema = {}  # a plug-in's annotation that JSON schema cannot express
    return [
        Option(
            name,
            meanings.get(name, ""),
            allowed(schema.get(name, {})),
            None if each.default is each.empty else each.default,
            each.default is each.empty,
        )
        for name, each in function_options(function).items()
    ]


def allowed(schema: Mapping[str, Any]) -> str:
    """Describes the values that a JSON schema allows.

    >>> allowed({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    'number > 0, <= 1'
    >>> allowed({"anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}]})
    'a, b; or unset'
    """
    if "anyOf" in schema:
        words = [allowed(one) for one in schema["anyOf"] if one.get("type") != "null"]
        unset = ["unset"] if len(words) < len(schema["anyOf"]) else []
        return "; or ".join([*words, *unset])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {allowed(schema.get('items', {})) or 'values'}"
    bounds = [f"{sign} {_number(schema[key])}" for key, sign in BOUNDS.items() if key in schema]
    return f"{TYPES.get(schema.get('type', ''), '')} {', '.join(bounds)}".strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _meanings(cls: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _entries(inspect.cleandoc(vars(base).get("__doc__") or ""))
    return found


def _entries(doc: str) -> dict[str, str]:
    """Returns what a docstring says of each attribute or argument."""
    section = SECTION.search(doc)
    return {
        name: " ".join(text.split()) for name, text in ENTRY.findall(section[1] if section else "")
    }

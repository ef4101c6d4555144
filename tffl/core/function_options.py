"""Options of functions, such as those that build models: keyword parameters, checked when set."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tffl.core.errors import UsageError, unknown
from tffl.core.options import error_line

GIVEN = 2
"""Number of parameters that tffl passes itself, by position: `(image_shape, classes)`."""

SEED = "seed"
"""A further parameter that tffl passes."""


def function_options(function: Any) -> dict[str, inspect.Parameter]:
    """Returns option → parameter: what follows the first two, except for `seed`."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        each.name: each
        for each in _parameters(function)[GIVEN:]
        if each.kind in kinds and each.name != SEED
    }


def takes_any(function: Any) -> bool:
    """Returns whether a function takes `**options`."""
    return any(each.kind is each.VAR_KEYWORD for each in _parameters(function))


def takes_seed(function: Any) -> bool:
    """Returns whether a function takes `seed=`."""
    return takes_any(function) or any(each.name == SEED for each in _parameters(function))


def checked_options(
    function: Any, options: Mapping[str, Any], section: str, name: str, others: Collection[str] = ()
) -> dict[str, Any]:
    """Returns all options of a function, checked against its annotations.

    Args:
      function: Takes the options as keyword arguments.
      options: Those that were set.
      section: The section of the config that has them, such as `"model"`.
      name: The function's name in that section.
      others: Further keys of the section, for the message.

    Raises:
      UsageError: An option is unknown or missing, or has a value out of its range.
    """
    known = function_options(function)
    for key in options:
        if key not in known and not takes_any(function):
            raise unknown(f"option of {section} {name}", key, {*known, *others})
    try:
        made = _checker(function).model_validate(dict(options))
    except ValidationError as error:
        raise UsageError(error_line(error, prefix=f"{section}.")) from None
    return {key: getattr(made, key) for key in (*known, *(made.model_extra or {}))}


def function_schema(function: Any) -> dict[str, Any]:
    """Returns the allowed values of a function's options, as a JSON schema."""
    return _checker(function).model_json_schema()


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # it is not written in Python
        return []


@cache
def _checker(function: Any) -> type[BaseModel]:
    """Returns the pydantic model that checks a function's options; cached, as making it is slow."""
    fields: dict[str, Any] = {
        name: (_hint(function, each), ... if each.default is each.empty else each.default)
        for name, each in function_options(function).items()
    }
    extra: Literal["allow", "forbid"] = "allow" if takes_any(function) else "forbid"
    settings = ConfigDict(arbitrary_types_allowed=True, extra=extra, protected_namespaces=())
    return create_model("Options", __config__=settings, **fields)


def _hint(function: Any, parameter: inspect.Parameter) -> Any:
    """Returns a parameter's annotation; `Any` if there is none, or it cannot be evaluated."""
    if parameter.annotation is parameter.empty:
        return Any
    one = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = get_type_hints(one, getattr(function, "__globals__", {}), include_extras=True)
    except (NameError, TypeError, SyntaxError):
        return Any
    return hints[parameter.name]

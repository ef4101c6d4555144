"""Names to factories, loaded only when they are used.

A registry maps a public kebab-case name to `"module:attribute"`. Third parties add theirs through
the entry-point group of the same name (`tffl.attacks`, `tffl.defenses`, `tffl.models`,
`tffl.datasets`), without changing tffl.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tffl.core.errors import UsageError, require, unknown
from tffl.core.options import explain

TABLES = "tables"
"""A dataclass with a field of this name also takes options of other entries of its registry, each
in a table of the entry's name, as in `[defense.krum]`; the field gets them all."""


@dataclass(frozen=True)
class Registry:
    """The attacks, defenses, models or datasets that can be named in a config.

    Attributes:
      kind: Singular noun for messages, such as `"attack"`.
      builtin: Public name → `"module:attribute"`.
    """

    kind: str
    builtin: Mapping[str, str]

    @cached_property
    def _targets(self) -> dict[str, str]:
        plugins = {point.name: point.value for point in entry_points(group=f"tffl.{self.kind}s")}
        return {**plugins, **self.builtin, **dict.fromkeys(self._session, "")}

    @cached_property
    def _session(self) -> dict[str, Any]:
        """Name → what this process has registered."""
        return {}

    def register(self, name: str, target: Any) -> None:
        """Gives something of the user's own a name, until the process ends.

        The same name may be given again, as a notebook does when a cell runs twice.

        Raises:
          UsageError: The name is not kebab-case, or tffl's own.
        """
        require(
            re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name) is not None,
            f"{self.kind} {name!r} is not allowed as a name: write it like my-{self.kind}",
        )
        require(name not in self.builtin, f"{self.kind} {name!r} is tffl's own: take another name")
        self._session[name] = target
        self._targets[name] = ""

    def forget(self, name: str) -> None:
        """Takes back what `register` did; nothing if the name was not registered."""
        if self._session.pop(name, None) is not None:
            del self._targets[name]

    def __iter__(self) -> Iterator[str]:
        """Yields the public names, sorted."""
        return iter(sorted(self._targets))

    def __getitem__(self, name: str) -> Any:
        """Imports and returns what `name` stands for.

        Raises:
          UsageError: The name is unknown; the message lists the nearest one and all of them.
        """
        if name not in self._targets:
            raise unknown(self.kind, name, self._targets)
        if name in self._session:
            return self._session[name]
        module, _, attribute = self._targets[name].partition(":")
        return getattr(import_module(module), attribute)

    def homes(self) -> dict[str, str]:
        """Returns the Python names of what tffl itself has → the modules that define them."""
        targets = (target.partition(":") for target in self.builtin.values())
        return {attribute: module for module, _, attribute in targets}

    def create(self, name: str, options: Mapping[str, Any]) -> Any:
        """Builds the dataclass `name` from user-given options, validated against its fields.

        Raises:
          UsageError: An option is unknown, missing, or has a value out of its range.
        """
        self._check_options(name, options)
        cls = self[name]
        known = _option_names(cls)
        values = {key: value for key, value in options.items() if key in known}
        if len(values) < len(options):
            values[TABLES] = {key: options[key] for key in options if key not in known}
        try:
            return _adapter(cls).validate_python(values)
        except ValidationError as error:
            raise UsageError(explain(error, prefix=f"{self.kind}.")) from None

    def create_parts(self, name: str, options: Mapping[str, Any]) -> list[Any]:
        """Builds what a name such as `"label-flip+scaling"` joins, in its order.

        An option goes to every part that has it.

        Raises:
          UsageError: As `create`, or a part is named twice.
        """
        names = name.split("+")
        twice = [part for part in names if names.count(part) > 1]
        require(not twice, f"{self.kind} {name} names {twice[0] if twice else ''} more than once")
        self._check_options(name, options)
        return [
            self.create(part, {key: options[key] for key in options if self.has_option(part, key)})
            for part in names
        ]

    def has_option(self, name: str, option: str) -> bool:
        """Says whether any part of a name such as `"label-flip+scaling"` has an option."""
        return any(
            option in _option_names(self[part])
            or (_takes_tables(self[part]) and self._is_name(option))
            for part in name.split("+")
        )

    def _check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raises `UsageError` unless a part of a name has each option, and tables are tables."""
        known = set().union(*(_option_names(self[part]) for part in name.split("+")))
        for key, value in options.items():
            if not self.has_option(name, key):
                raise unknown(f"option of {self.kind} {name}", key, known)
            require(
                key in known or isinstance(value, Mapping),
                f"{self.kind}.{key} is a section: set {self.kind}.{key}.KEY",
            )

    def _is_name(self, name: str) -> bool:
        return all(part in self._targets for part in name.split("+"))

    def describe(self, name: str) -> dict[str, Any]:
        """Returns name, one-line summary, citation, needs and options of an entry."""
        target = self[name]
        return {
            "name": name,
            "summary": (inspect.getdoc(target) or "").split("\n")[0],
            "reference": getattr(target, "reference", ""),
            # A defense needs more than the updates; an attack knows more than its own clients.
            "needs": list(getattr(target, "needs", getattr(target, "knowledge", ()))),
            "options": _options(target),
        }


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    """Returns what validates a dataclass; making it takes longer than using it."""
    return TypeAdapter(cls)


def _option_names(cls: Any) -> set[str]:
    return {field.name for field in fields(cls) if field.init and field.name != TABLES}


def _takes_tables(cls: Any) -> bool:
    return any(field.name == TABLES for field in fields(cls))


def _options(target: Any) -> dict[str, Any]:
    if not hasattr(target, "__dataclass_fields__"):
        return {}
    return {
        field.name: None if field.default is MISSING else field.default
        for field in fields(target)
        if field.name in _option_names(target)
    }

"""Registries from names to classes and functions, which are imported when they are used.

A registry maps a public kebab-case name to `"module:attribute"`. Other packages add names through
the entry-point group of the same name (`tffl.attacks`, `tffl.defenses`, `tffl.models`,
`tffl.datasets`), without changing tffl.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tffl.core.errors import TfflError, TfflWarning, UsageError, first_line, require, unknown
from tffl.core.function_options import function_options
from tffl.core.option_table import option_table
from tffl.core.options import error_line

T = TypeVar("T")


@dataclass(frozen=True)
class Registry:
    """The attacks, defenses, models or datasets that can be named in a config.

    Attributes:
      kind: Singular noun for messages, such as `"attack"`.
      builtin: Public name → `"module:attribute"`.
      base: `"module:attribute"` of the class that plug-ins extend, if there is one.
    """

    kind: str
    builtin: Mapping[str, str]
    base: str = ""

    @cached_property
    def _targets(self) -> dict[str, str]:
        """Name → `"module:attribute"`; a plug-in whose name is taken is a warning."""
        targets = dict(self.builtin)
        for point in entry_points(group=f"tffl.{self.kind}s"):
            taken = targets.setdefault(point.name, point.value)
            if taken != point.value:
                owner = "tffl's own" if point.name in self.builtin else f"that of {taken}"
                warnings.warn(
                    f"the plug-in {self.kind} {point.name} ({point.value}) is ignored, as the name "
                    f"is {owner}: register it under another one",
                    TfflWarning,
                    stacklevel=2,
                )
        return targets | dict.fromkeys(self._session, "")

    @cached_property
    def _session(self) -> dict[str, Any]:
        """Name → class or function that `register` was called with."""
        return {}

    def register(self, name: str, target: Any) -> None:
        """Names a class or function of the user's, until the process ends.

        A name may be registered again, as in a notebook whose cell runs twice.

        Raises:
          UsageError: The name is not kebab-case, or tffl's own.
        """
        require(
            re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name) is not None,
            f"{self.kind} {name!r} is not allowed as a name: write it like my-{self.kind}",
        )
        require(name not in self.builtin, f"{self.kind} {name!r} is tffl's own: take another name")
        if lost := _lost_options(target):
            raise UsageError(f"{name} would lose {lost}: decorate it with @dataclass(frozen=True)")
        self._session[name] = target
        self._targets[name] = ""

    def forget(self, name: str) -> None:
        """Undoes `register`; does nothing if the name was not registered."""
        if self._session.pop(name, None) is not None:
            del self._targets[name]

    def forget_all(self) -> None:
        """Undoes every `register` of this process."""
        for name in list(self._session):
            self.forget(name)

    def __iter__(self) -> Iterator[str]:
        """Yields the public names, sorted."""
        return iter(sorted(self._targets))

    def __getitem__(self, name: str) -> Any:
        """Imports and returns the class or function of a name.

        Raises:
          UsageError: The name is unknown; the message lists the nearest one and all of them.
          TfflError: A plug-in cannot be used; the message names it.
        """
        if name not in self._targets:
            raise unknown(self.kind, name, self._targets)
        if name in self._session:
            return self._session[name]
        if name in self.builtin:
            return _imported(self._targets[name])
        plugin = self._plugin(name)
        with self._named(name, "loaded"):
            target = _imported(self._targets[name])
        if lost := _lost_options(target):
            raise TfflError(f"{plugin} would lose {lost}: decorate it with @dataclass(frozen=True)")
        if self.base and not (isinstance(target, type) and issubclass(target, self._base)):
            raise TfflError(f"{plugin} is not a subclass of {self.base}, as every {self.kind} is")
        return target

    def _plugin(self, name: str) -> str:
        return f"the plug-in {self.kind} {name} ({self._targets[name]})"

    @contextmanager
    def _named(self, name: str, done: str) -> Iterator[None]:
        """Turns an error in a plug-in's code into one that names the plug-in."""
        try:
            yield
        except (Exception, SystemExit) as error:
            if name in self.builtin or isinstance(error, TfflError):
                raise
            plugin = self._plugin(name)
            raise TfflError(f"{plugin} cannot be {done}: {first_line(error)}") from error

    @property
    def _base(self) -> Any:
        return _imported(self.base)

    def homes(self) -> dict[str, str]:
        """Returns the Python names of tffl's own entries → the modules that define them."""
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
            values[_tables_field(cls)] = {key: options[key] for key in options if key not in known}
        with self._named(name, "made"):
            try:
                return _adapter(cls).validate_python(values)
            except ValidationError as error:
                raise UsageError(error_line(error, prefix=f"{self.kind}.")) from None

    def create_parts(self, name: str, options: Mapping[str, Any]) -> list[Any]:
        """Builds the parts of a name such as `"label-flip+scaling"`, in their order.

        An option is passed to every part that has it.

        Raises:
          UsageError: As `create`, or the name holds a part twice.
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
            or (_tables_field(self[part]) and self._is_name(option))
            for part in name.split("+")
        )

    def shared_options(
        self, names: Collection[str], options: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Gives each of several entries those options that it has.

        Returns:
          Name → options, without repeated names.

        Raises:
          UsageError: A name is unknown, or none of them has an option.
        """
        known = self._option_names(names)
        shared = {
            name: {key: options[key] for key in options if self.has_option(name, key)}
            for name in names
        }
        for key in options:
            if not any(key in own for own in shared.values()):
                kind = f"option of {self.kind} {', '.join(shared)}"
                raise unknown(kind, key, known)
        return shared

    def _option_names(self, names: Iterable[str]) -> set[str]:
        """Returns the options of all parts of names such as `"label-flip+scaling"`."""
        parts = {part for name in names for part in name.split("+")}
        return set().union(*(_option_names(self[part]) for part in parts))

    def _check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raises `UsageError` unless a part of a name has each option, and tables are tables."""
        known = self._option_names([name])
        for key, value in options.items():
            if not self.has_option(name, key):
                raise unknown(f"option of {self.kind} {name}", key, known)
            require(
                key in known or isinstance(value, Mapping),
                f"{self.kind}.{key} is a section: set {self.kind}.{key}.KEY",
            )

    def _is_name(self, name: str) -> bool:
        return all(part in self._targets for part in name.split("+"))

    def describe_all(self) -> list[dict[str, Any]]:
        """Describes every entry; a plug-in that fails is left out, and a warning names it."""
        return list(self.usable(self.describe))

    def usable(self, use: Callable[[str], T]) -> Iterator[T]:
        """Yields the result of a function for each name; a warning names a plug-in that fails."""
        for name in self:
            try:
                yield use(name)
            except Exception as error:  # a plug-in's code may raise anything
                if name in self.builtin:
                    raise
                message = str(error) if isinstance(error, TfflError) else first_line(error)
                plugin = self._plugin(name)
                text = message if message.startswith(plugin) else f"{plugin} is left out: {message}"
                warnings.warn(text, TfflWarning, stacklevel=2)

    def explain(self, name: str) -> dict[str, Any]:
        """Returns `describe(name)`, with default, range and meaning of each option."""
        options = option_table(self[name], hidden=_tables_field(self[name]))
        return {**self.describe(name), "options": [option._asdict() for option in options]}

    def describe(self, name: str) -> dict[str, Any]:
        """Returns name, one-line summary, citation, needs and options of an entry."""
        target = self[name]
        with self._named(name, "described"):
            return {
                "name": name,
                "summary": (inspect.getdoc(target) or "").split("\n")[0],
                "reference": getattr(target, "reference", ""),
                # A defense needs more than the updates; an attack knows more than its own clients.
                "needs": list(getattr(target, "needs", getattr(target, "knowledge", ()))),
                "options": _options(target),
            }


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _lost_options(target: Any) -> str:
    """Returns annotated fields of a class or its bases that are not dataclasses, as words."""
    names = [
        name
        for cls in getattr(target, "__mro__", ())
        if cls.__module__.partition(".")[0] not in ("builtins", "abc", "typing")
        and "__dataclass_fields__" not in vars(cls)
        for name, annotation in inspect.get_annotations(cls).items()
        if "ClassVar" not in str(annotation) and not name.startswith("_")
    ]
    return f"its option{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    """Returns the validator of a dataclass; cached, as it is slow to make."""
    return TypeAdapter(cls)


def _option_names(cls: Any) -> set[str]:
    return {field.name for field in fields(cls) if field.init and field.name != _tables_field(cls)}


def _tables_field(cls: Any) -> str:
    """Returns the name of the field that takes tables of other entries; empty if none does."""
    return getattr(cls, "tables_field", "")


def _options(target: Any) -> dict[str, Any]:
    if not hasattr(target, "__dataclass_fields__"):
        options = {} if isinstance(target, type) else function_options(target)
        return {
            name: None if each.default is each.empty else each.default
            for name, each in options.items()
        }
    return {
        field.name: None if field.default is MISSING else field.default
        for field in fields(target)
        if field.name in _option_names(target)
    }

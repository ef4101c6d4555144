"""Reads experiments from TOML, nested values and dotted overrides; every error is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tffl.core import shipped
from tffl.core.errors import UsageError, require, unknown
from tffl.core.options import error_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


from tffl.config.sections import Config

AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def build(values: Mapping[str, Any], cls: type[AnyConfig] = Config) -> AnyConfig:  # type: ignore[assignment]
    """Validates nested values and returns them as a config.

    Args:
      values: Section → key → value.
      cls: Class of the config.

    Raises:
      UsageError: A key is unknown or a value is not allowed; the message says what is allowed.
    """
    _check_keys(values, cls)
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error" and " is not allowed" in first["msg"]:
            raise UsageError(first["msg"].removeprefix("Value error, ")) from None
        raise UsageError(error_line(error)) from None


def _check_keys(values: Mapping[str, Any], cls: type[BaseModel], prefix: str = "") -> None:
    if cls.model_config.get("extra") == "allow":
        return
    for key, value in values.items():
        if key not in cls.model_fields:
            raise unknown("config key", prefix + key, [prefix + name for name in cls.model_fields])
        section = cls.model_fields[key].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if isinstance(value, BaseModel):
                continue
            require(
                isinstance(value, Mapping), f"{prefix}{key} is a section: set {prefix}{key}.KEY"
            )
            _check_keys(value, section, f"{prefix}{key}.")


def read(path: Path) -> dict[str, Any]:
    """Reads a TOML file, or a config that is installed with tffl, such as `quickstart`.

    Raises:
      UsageError: The file is missing, unreadable or not TOML.
    """
    if not path.exists() and not path.suffix:
        path = shipped.find(path.as_posix()) or _refuse_missing(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config {path} is not valid TOML: {error}") from None


def _refuse_missing(path: Path) -> Path:
    raise UsageError(
        f"there is no file {path}, and no config of this name comes with tffl: choose a file, or "
        f"one of {', '.join(shipped.names())}"
    )


def build_from_file(
    path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
    cls: type[AnyConfig] = Config,  # type: ignore[assignment]
) -> AnyConfig:
    """Reads a TOML file, changes its values, and returns them as a config.

    Args:
      path: The file, or the name of an installed config.
      change: From the file's nested values to those of the config.
      cls: Class of the config.

    Raises:
      UsageError: The file cannot be read, or a key or value is not allowed; where the file itself
        is wrong, the message begins with its path.
    """
    values = read(path)
    try:
        return build(change(values), cls)
    except UsageError as error:
        if _error_of(values, cls) != str(error):
            raise
        raise UsageError(f"{path}: {error}") from None


def _error_of(values: Mapping[str, Any], cls: type[BaseModel]) -> str:
    """Returns the error line of invalid values; empty if they are valid."""
    try:
        build(values, cls)
    except UsageError as error:
        return str(error)
    return ""


def as_config(experiment: Config | Mapping[str, Any] | Path | str) -> Config:
    """Returns a config, from a config, nested values, or the path of a TOML file.

    Raises:
      UsageError: The argument is none of these, or a key or value is not allowed.
    """
    if isinstance(experiment, Config):
        return experiment
    if isinstance(experiment, Path | str):
        return load(experiment)
    require(
        isinstance(experiment, Mapping),
        f"an experiment is a Config, nested values or the path of a TOML file, not {experiment!r}",
    )
    return build(experiment)


def override(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested `values` with `changes` applied; the keys of `changes` are dotted paths.

    >>> override({"seed": 1}, {"data.beta": 0.1, "seed": 2})
    {'seed': 2, 'data': {'beta': 0.1}}
    """
    result = dict(values)
    for path, value in changes.items():
        *sections, key = path.split(".")
        target = result
        for section in sections:
            inner = target.get(section, {})
            is_section = isinstance(inner, Mapping)
            require(is_section, f"{path} cannot be set: {section} is not a section")
            target[section] = dict(inner)
            target = target[section]
        target[key] = value
    return result


def load(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads a config file, or starts from the defaults, and applies dotted overrides.

    Raises:
      UsageError: The file is missing or invalid, or a key or value is not allowed.
    """
    changes = overrides or {}
    if path is None:
        return build(override({}, changes))
    return build_from_file(Path(path), lambda values: override(values, changes))


def parse_setting(text: str) -> tuple[str, Any]:
    """Splits `section.key=value`; the value is read as TOML, or else kept as a string.

    >>> parse_setting("attack.scale=5")
    ('attack.scale', 5)
    >>> parse_setting("attack.name=label-flip")
    ('attack.name', 'label-flip')
    """
    key, separator, value = text.partition("=")
    require(bool(separator and key.strip()), f"--set takes section.key=value, not {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()

"""What the name of a model stands for: a registered name, a file, or a function in a module.

cnn                       a name of `tffl list models`
my.keras                  a file
package.module:function   a function (image_shape, classes) → keras.Model
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tffl.config import ModelConfig
from tffl.core.errors import TfflError, UsageError, first_line, require, unknown
from tffl.core.function_options import checked_options
from tffl.models import models
from tffl.models.file import check_model_file, load_model_file
from tffl.models.validation import check_classifier

if TYPE_CHECKING:
    import keras

KEYS = ("weights", "head", "imports")
"""Keys of the section `[model]` that every model has."""

KEEPS_WEIGHTS = "keeps_weights"
"""Attribute of a function whose models have the same weights whatever the seed."""


def is_file(name: str) -> bool:
    """Returns whether the name of a model is the path of a file."""
    looks = Path(name).suffix.lower() in (".keras", ".h5", ".hdf5", ".zip") or "/" in name
    return name not in models and looks


def find_model(config: ModelConfig) -> Callable[..., keras.Model]:
    """Returns the function (image_shape, classes) → model that a config names.

    Raises:
      UsageError: There is no such name, file, module or function; or an import fails.
    """
    import_modules(config.imports)
    name = config.name
    if is_file(name):
        path = Path(name).expanduser()
        check_model_file(path, f"model {name}")
        return keeping_weights(partial(_from_file, path))
    if name not in models and re.fullmatch(r"[\w.]+:[\w.]+", name):
        return _imported(name)
    function: Callable[..., keras.Model] = models[name]
    return function


def shape_of_file(path: Path) -> tuple[tuple[int, ...], int]:
    """Returns the shape of the samples that a model file takes, and the number of its outputs.

    Raises:
      UsageError: The file is missing or damaged, or takes samples of any size.
    """
    what = f"model {path}"
    check_model_file(path, what)
    model = load_model_file(path, what)
    check_classifier(model, what)
    shape = tuple(model.input_shape[1:])
    require(None not in shape, f"{what} takes images of any size: give one with --image-size")
    return shape, int(model.output_shape[-1])


def model_options(config: ModelConfig) -> dict[str, Any]:
    """Returns all options of a config's model, checked.

    Raises:
      UsageError: As `find_model`; or an option is unknown, or has a value out of its range.
    """
    return checked_options(find_model(config), config.options, "model", config.name, KEYS)


def resolved_model(config: ModelConfig) -> ModelConfig:
    """Returns a config with the options of tffl's own models spelled out, and paths absolute."""
    if config.name in models.builtin:
        changes = model_options(config)
    else:
        changes = {"name": _absolute(config.name)} if is_file(config.name) else {}
    if config.weights:
        changes["weights"] = _absolute(config.weights)
    return ModelConfig.model_validate(config.model_dump() | changes)


def has_weights(config: ModelConfig) -> bool:
    """Returns whether a config gives a model its first weights, which are random otherwise."""
    return bool(config.weights) or getattr(find_model(config), KEEPS_WEIGHTS, False)


def keeping_weights(build: Any) -> Any:
    """Marks a function whose models have the same weights whatever the seed."""
    setattr(build, KEEPS_WEIGHTS, True)
    return build


def import_modules(names: Iterable[str]) -> None:
    """Imports modules, such as those that register layers; the working directory is searched too.

    Raises:
      UsageError: There is no such module, or it fails.
    """
    for name in names:
        _module(name, f"--import {name}")


def _imported(reference: str) -> Callable[..., keras.Model]:
    module, _, attribute = reference.partition(":")
    found: Any = _module(module, f"model {reference}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")]
            raise unknown(f"function of {module}", attribute, public)
        found = getattr(found, part)
    require(callable(found), f"model {reference} is no function: it is {found!r:.80}")
    return found


def _module(name: str, what: str) -> Any:
    from tffl.core.process import silence

    silence()  # the module is likely to import TensorFlow
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"{what} cannot be imported: {first_line(error)}") from error
        raise UsageError(
            f"{what} is not found: there is no module {error.name} in {os.getcwd()}, nor installed"
        ) from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        if isinstance(error, TfflError):
            raise
        raise UsageError(f"{what} cannot be imported: {first_line(error)}") from error


def _from_file(path: Path, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    return load_model_file(path, f"model {path}")


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())

"""The classes and functions that the config of a client's model may name.

Keras imports and calls what a config names while it loads the model. In some versions that can be
any function of any module, even in safe mode. A list of forbidden names could never be complete, so
this module lists the allowed ones: the names in the global model's config, the names that Keras
always writes, and the optimizers, losses and metrics that a client may compile the model with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from tffl.untrusted.refusal import Refused, printable

if TYPE_CHECKING:
    import keras

PACKAGES = ("keras", "tf_keras")
"""Packages whose classes are compared by name alone: their modules differ between versions."""

ALWAYS_WRITTEN = frozenset(
    {
        "__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__",
        "DTypePolicy", "FloatDTypePolicy", "Functional", "InputLayer", "Model", "Sequential",
    }
)  # fmt: skip
"""Classes that Keras writes into the config of every model."""

COMPILE_ARGUMENTS = re.compile(
    r"(tf_)?keras\.(optimizers|optimizers\.schedules|losses|metrics):[A-Z]\w*"
)
"""Classes that `compile` accepts: these modules contain only Keras' own."""

FUNCTION_MODULES = ("builtins", "keras.activations", "keras.losses", "keras.metrics")
"""Modules that Keras writes for its own losses, metrics and activations."""

NAME_KEYS = ("class_name", "module", "registered_name", "spec_name")
"""Keys by which a config names what Keras should import."""


@dataclass(frozen=True)
class AllowedNames:
    """The names in the config of a trusted model.

    Attributes:
      names: Classes and functions, as `_qualified_name` writes them.
      registered: Names under which classes of other packages are registered with Keras.
    """

    names: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: keras.Model) -> AllowedNames:
        """Returns the names in the config that Keras writes for a model."""
        import keras

        entries = list(_named_entries(keras.saving.serialize_keras_object(model)))
        return cls(
            frozenset(map(_qualified_name, entries)),
            frozenset(
                str(entry["registered_name"]) for entry in entries if _has_registered_name(entry)
            ),
        )

    def check(self, config: Any) -> None:
        """Checks every name in a config.

        Args:
          config: The parsed JSON of a client's `config.json`.

        Raises:
          Refused: The config names a class or function that is not allowed.
        """
        for entry in _named_entries(config):
            name = _qualified_name(entry)
            if name not in self.names and not _belongs_to_keras(entry):
                raise Refused(
                    f"config.json names {printable(name)}, which the global model does not have: "
                    "loading it could run code"
                )
            registered = entry.get("registered_name")
            if _has_registered_name(entry) and registered not in self.registered:
                raise Refused(
                    f"config.json names {printable(str(registered))}, which the global model does "
                    "not have: loading it could run code"
                )


def _named_entries(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every mapping within a config that names a class or a function."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if any(isinstance(value.get(key), str) for key in NAME_KEYS):
                yield value
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)


def _qualified_name(entry: dict[str, Any]) -> str:
    """Returns `module:Class` or `module:function name`; the module is `keras` for Keras' own."""
    module, kind = entry.get("module"), str(entry.get("class_name"))
    if kind == "function":
        kind = f"function {entry.get('config')}"
    package = "keras" if module is None else str(module).partition(".")[0]
    spec = f" of {entry['spec_name']}" if "spec_name" in entry else ""
    return f"{'keras' if package in PACKAGES else module}:{kind}{spec}"


def _belongs_to_keras(entry: dict[str, Any]) -> bool:
    """Returns whether Keras may write this name for any model, whatever its layers are."""
    module, kind = str(entry.get("module")), entry.get("class_name")
    if kind == "function":
        return module in FUNCTION_MODULES and _is_keras_function(entry.get("config"))
    if kind in ALWAYS_WRITTEN and _qualified_name(entry) == f"keras:{kind}":
        return True
    return COMPILE_ARGUMENTS.fullmatch(f"{module}:{kind}") is not None


def _is_keras_function(name: Any) -> bool:
    """Returns whether a name is that of a loss, metric or activation function of Keras."""
    import keras

    if not isinstance(name, str) or name in ("deserialize", "get", "serialize"):
        return False
    modules = (keras.losses, keras.metrics, keras.activations)
    return any(isfunction(getattr(module, name, None)) for module in modules)


def _has_registered_name(entry: dict[str, Any]) -> bool:
    """Returns whether Keras looks an entry up by a registered name instead of its class name."""
    defaults = (None, entry.get("class_name"), entry.get("config"))
    return entry.get("registered_name") not in defaults

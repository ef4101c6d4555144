"""Which classes and functions a client's config may name: those of the global model's own.

Keras imports what a config names and calls it while it loads the model; depending on its version
that is any function of any module, in its safe mode too. So a list of forbidden names has no end,
and this one is of allowed names: the global model's, what Keras always writes, and the optimizers,
losses and metrics that a client may compile the model with.
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
"""In which a class is known by its name alone: internal modules differ between versions."""

WRITTEN = frozenset(
    {
        "__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__",
        "DTypePolicy", "FloatDTypePolicy", "Functional", "InputLayer", "Model", "Sequential",
    }
)  # fmt: skip
"""Classes that Keras writes whatever the layers are."""

COMPILED = re.compile(r"(tf_)?keras\.(optimizers|optimizers\.schedules|losses|metrics):[A-Z]\w*")
"""Classes that `compile` takes: these modules hold none but Keras' own."""

FUNCTIONS = ("builtins", "keras.activations", "keras.losses", "keras.metrics")
"""Modules that Keras writes for its own losses, metrics and activations."""

NAMING = ("class_name", "module", "registered_name", "spec_name")
"""Keys by which a config names what Keras is to import."""


@dataclass(frozen=True)
class AllowedNames:
    """What the config of a trusted model names.

    Attributes:
      names: Its classes and functions, as `_name` writes them.
      registered: Names under which classes of other packages are registered with Keras.
    """

    names: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: keras.Model) -> AllowedNames:
        """Reads what Keras itself would write of a model."""
        import keras

        found = list(_naming(keras.saving.serialize_keras_object(model)))
        return cls(
            frozenset(map(_name, found)),
            frozenset(str(entry["registered_name"]) for entry in found if _registers(entry)),
        )

    def check(self, config: Any) -> None:
        """Raises `Refused` if a parsed config names anything else."""
        for entry in _naming(config):
            name = _name(entry)
            if name not in self.names and not _is_keras_own(entry):
                raise Refused(
                    f"config.json names {printable(name)}, which the global model does not have: "
                    "loading it could run code"
                )
            registered = entry.get("registered_name")
            if _registers(entry) and registered not in self.registered:
                raise Refused(
                    f"config.json names {printable(str(registered))}, which the global model does "
                    "not have: loading it could run code"
                )


def _naming(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every mapping within a config that names a class or a function."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if any(isinstance(value.get(key), str) for key in NAMING):
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def _name(entry: dict[str, Any]) -> str:
    """Returns `package:class`, or `package:function name`; `Class` alone where it is Keras' own."""
    module, kind = entry.get("module"), str(entry.get("class_name"))
    if kind == "function":
        kind = f"function {entry.get('config')}"
    package = "keras" if module is None else str(module).partition(".")[0]
    spec = f" of {entry['spec_name']}" if "spec_name" in entry else ""
    return f"{'keras' if package in PACKAGES else module}:{kind}{spec}"


def _is_keras_own(entry: dict[str, Any]) -> bool:
    """Returns whether Keras writes this, whatever the model's layers are."""
    module, kind = str(entry.get("module")), entry.get("class_name")
    if kind == "function":
        return module in FUNCTIONS and _is_keras_function(entry.get("config"))
    if kind in WRITTEN and _name(entry) == f"keras:{kind}":
        return True
    return COMPILED.fullmatch(f"{module}:{kind}") is not None


def _is_keras_function(name: Any) -> bool:
    """Returns whether a plain name is that of one of Keras' losses, metrics or activations."""
    import keras

    if not isinstance(name, str) or name in ("deserialize", "get", "serialize"):
        return False
    modules = (keras.losses, keras.metrics, keras.activations)
    return any(isfunction(getattr(module, name, None)) for module in modules)


def _registers(entry: dict[str, Any]) -> bool:
    """Returns whether an entry goes by a registered name of its own, which comes first."""
    usual = (None, entry.get("class_name"), entry.get("config"))
    return entry.get("registered_name") not in usual

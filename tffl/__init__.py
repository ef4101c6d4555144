"""tffl: can a federated-learning server be poisoned, and what stops it?

Public names are imported on first use, so that `import tffl` imports neither TensorFlow nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tffl.core import keras_settings

if TYPE_CHECKING:
    from tffl import attacks as attacks
    from tffl import callbacks as callbacks
    from tffl import data as data
    from tffl import defenses as defenses
    from tffl import models as models
    from tffl import testing as testing
    from tffl.config import Config as Config
    from tffl.config import load as load
    from tffl.core.errors import TfflError as TfflError
    from tffl.core.errors import UsageError as UsageError
    from tffl.core.updates import Updates as Updates
    from tffl.core.verdict import Verdict as Verdict
    from tffl.defenses.session import Session as Session
    from tffl.simulation.objects import register as register
    from tffl.simulation.run import Run as Run
    from tffl.simulation.simulation import simulate as simulate

keras_settings.choose_backend()

__version__ = "0.1.0"

_HOMES = {
    "Config": "tffl.config",
    "Run": "tffl.simulation.run",
    "Session": "tffl.defenses.session",
    "TfflError": "tffl.core.errors",
    "Updates": "tffl.core.updates",
    "UsageError": "tffl.core.errors",
    "Verdict": "tffl.core.verdict",
    "load": "tffl.config",
    "register": "tffl.simulation.objects",
    "simulate": "tffl.simulation.simulation",
}
_ROOMS = ("attacks", "callbacks", "data", "defenses", "models", "testing")

__all__ = [*sorted([*_HOMES, *_ROOMS, "layout_of"]), "__version__"]


def layout_of(model: Any) -> Any:
    """Returns the `WeightLayout` of a built Keras model: what the columns of its rows are."""
    from tffl.core.layout import WeightLayout

    return WeightLayout.of(model)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name in _ROOMS:
        return import_module(f"tffl.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'tffl' has no attribute '{name}'")
    if _HOMES[name].startswith("tffl.simulation"):
        import_module("tffl.core.process").silence()
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

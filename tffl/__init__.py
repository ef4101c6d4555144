"""tffl: can a federated-learning server be poisoned, and what stops it?

Public names are imported on first use, so that `import tffl` does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tffl import keras_settings

if TYPE_CHECKING:
    from tffl.config import Config as Config
    from tffl.config import load as load
    from tffl.errors import TfflError as TfflError
    from tffl.errors import UsageError as UsageError
    from tffl.federated.simulation import Run as Run
    from tffl.federated.simulation import simulate as simulate

keras_settings.choose_backend()

__version__ = "0.1.0"

_HOMES = {
    "Config": "tffl.config",
    "Run": "tffl.federated.simulation",
    "TfflError": "tffl.errors",
    "UsageError": "tffl.errors",
    "load": "tffl.config",
    "simulate": "tffl.federated.simulation",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tffl' has no attribute '{name}'")
    if _HOMES[name].startswith("tffl.federated"):
        import_module("tffl.federated.runtime").silence()
    return getattr(import_module(_HOMES[name]), name)

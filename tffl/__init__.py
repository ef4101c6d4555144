"""tffl: can a federated-learning server be poisoned, and what stops it?

Public names are imported on first use, so that `import tffl` does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tffl.config import Config as Config
    from tffl.config import load as load
    from tffl.core.errors import TfflError as TfflError
    from tffl.core.errors import UsageError as UsageError
    from tffl.simulation.simulation import Run as Run
    from tffl.simulation.simulation import simulate as simulate

__version__ = "0.1.0"

_HOMES = {
    "Config": "tffl.config",
    "Run": "tffl.simulation.simulation",
    "TfflError": "tffl.core.errors",
    "UsageError": "tffl.core.errors",
    "load": "tffl.config",
    "simulate": "tffl.simulation.simulation",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tffl' has no attribute '{name}'")
    if _HOMES[name].startswith("tffl.engine"):
        import_module("tffl.core.process").silence()
    return getattr(import_module(_HOMES[name]), name)

"""What can be named in a config, by kind: attacks, defenses, models, datasets, metrics."""

from __future__ import annotations

from tffl import attacks, callbacks, data, defenses, models
from tffl.core.errors import unknown
from tffl.core.registry import Registry

HOMES = {
    "attacks": attacks,
    "defenses": defenses,
    "models": models,
    "datasets": data,
    "metrics": callbacks,
}
"""Kind, a plural noun → the package whose registry has the same name."""


def registry(kind: str) -> Registry:
    """Returns the registry of a kind, such as `"attacks"`.

    Raises:
      UsageError: There is no such kind; the message lists them.
    """
    if kind not in HOMES:
        raise unknown("kind", kind, HOMES)
    found: Registry = getattr(HOMES[kind], kind)
    return found

"""Defenses of a federated server: one file each, named in a config by `defense.name`."""

from collections.abc import Mapping
from typing import Any

from tffl.defenses.base import Defense, Server, Verdict
from tffl.registry import Registry

defenses = Registry(
    "defense",
    {
        "none": "tffl.defenses.none:FedAvg",
        "bias-anomaly": "tffl.defenses.bias_anomaly:BiasAnomaly",
    },
)


def create_defense(name: str, options: Mapping[str, Any]) -> Defense:
    """Builds a defense, or one behind others as in `nnm+krum`, from user-given options.

    Raises:
      UsageError: A name or an option does not exist, a value is out of its range, or the parts do
        not go together.
    """
    from tffl.defenses.wrapper import wrap

    return wrap(name, defenses.create_parts(name, options))


__all__ = ["Defense", "Server", "Verdict", "create_defense", "defenses"]

"""Defenses of a server: one file each, named in a config by `defense.name`."""

from tffl.defenses.base import Defense, Server, Verdict
from tffl.registry import Registry

defenses = Registry(
    "defense",
    {
        "none": "tffl.defenses.none:FedAvg",
        "bias-anomaly": "tffl.defenses.bias_anomaly:BiasAnomaly",
    },
)

__all__ = ["Defense", "Server", "Verdict", "defenses"]

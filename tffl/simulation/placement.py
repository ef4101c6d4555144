"""Where clients are trained: on this machine, or on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from tffl.config import RuntimeConfig
from tffl.engine.observer import Observer
from tffl.engine.placement import LocalDevices


def place(runtime: RuntimeConfig, devices: Sequence[str], observer: Observer) -> LocalDevices:
    """Returns the placement that a config asks for.

    Args:
      runtime: Local or cluster, and where its workers are.
      devices: Local TensorFlow device names.
      observer: Hears about workers.

    Raises:
      TfflError: The workers do not answer.
    """
    if runtime.placement == "local":
        return LocalDevices(devices)
    from tffl.simulation.cluster.chief import Cluster

    return Cluster(devices, runtime, observer)

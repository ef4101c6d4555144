"""What a run ran on: versions, devices, and the command that started it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def environment(command: Sequence[str]) -> dict[str, Any]:
    """Returns what `environment.json` says: versions, devices, the command, and when it began."""
    import tensorflow as tf

    return {
        "command": list(command),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("tffl", "tensorflow", "keras", "numpy")},
        },
        "platform": platform.platform(),
        "machine": platform.machine(),
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # such as tensorflow-cpu in the place of tensorflow
        return None

"""The CPU cores of this process, and TensorFlow without its start-up messages."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from tffl.core.errors import UsageError
from tffl.core.keras_settings import settle


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def silence() -> None:
    """Imports TensorFlow without its start-up messages, unless `TF_CPP_MIN_LOG_LEVEL` is 0.

    Some are written before TensorFlow reads any setting, so standard error is redirected meanwhile.
    TensorFlow imports Keras, and `settle` sets what tffl needs of it.

    Raises:
      UsageError: Keras was imported before tffl with settings that do not suit.
    """
    if "tensorflow" not in sys.modules and os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
        _import_quietly()
    settle()


def _import_quietly() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import_module("tensorflow").get_logger().setLevel("ERROR")
    except AssertionError as error:  # of a floatx that Keras would take
        raise UsageError("TensorFlow refuses what ~/.keras/keras.json sets: mend it") from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)

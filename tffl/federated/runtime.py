"""TensorFlow, set up so that results do not depend on the machine's cores.

The number of threads inside an operation changes the bits of convolutions' gradients. It is fixed
to one; parallelism comes from training several clients at a time, each on its own device.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from tffl.errors import UsageError
from tffl.keras_settings import settle

INTRA_OP_THREADS = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Runtime:
    """Where clients are trained.

    Attributes:
      devices: TensorFlow device names, one per worker; several workers may share a device.
      intra_op_threads: Threads inside an operation; results are reproducible across machines only
        when it is 1.
    """

    devices: tuple[str, ...]
    intra_op_threads: int


def silence() -> None:
    """Imports TensorFlow without its start-up messages, unless `TF_CPP_MIN_LOG_LEVEL` is 0.

    Some are written before TensorFlow reads any setting, hence the detour of standard error.
    TensorFlow imports Keras, whose settings are made tffl's.

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


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure(devices: int = 0) -> Runtime:
    """Fixes thread counts, and picks `devices` local devices (0: all).

    GPUs are used where there are any. On CPU, each worker gets a single-threaded logical device.
    In a process where TensorFlow has already started, its devices and threads stay as they are
    and workers share them; results are the same as long as operations are single-threaded.
    """
    silence()
    _keep_freed_memory()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    workers = devices or len(gpus) or cores()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(INTRA_OP_THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(max(workers, cores()))
        if gpus:  # cuDNN picks its algorithms by speed, and some add in any order
            tf.config.experimental.enable_op_determinism()
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if not gpus:
            cpu = tf.config.list_physical_devices("CPU")[0]
            logical = [tf.config.LogicalDeviceConfiguration()] * workers
            tf.config.set_logical_device_configuration(cpu, logical)
    except (RuntimeError, ValueError):  # TensorFlow has started: use what is there
        pass
    local = _local_devices("GPU") or _local_devices("CPU")
    names = tuple(local[worker % len(local)].name for worker in range(workers))
    return Runtime(names, tf.config.threading.get_intra_op_parallelism_threads())


@cache
def computes(dtype: str) -> bool:
    """Says whether convolutions in `bfloat16` or `float16` work here.

    oneDNN has none in bfloat16 for processors, or under settings, without AVX-512 or AVX2.
    """
    import tensorflow as tf

    try:
        tf.nn.conv2d(tf.zeros((1, 4, 4, 1), dtype), tf.zeros((3, 3, 1, 1), dtype), 1, "VALID")
    except tf.errors.OpError:
        return False
    return True


def _local_devices(kind: str) -> list[Any]:
    """Returns this process' devices; once it is in a cluster, TensorFlow lists its workers' too."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices(kind)
    return [one for one in devices if not one.name.startswith(("/job:worker", "/job:ps"))]


def _keep_freed_memory() -> None:
    """Tells glibc to reuse what is freed instead of returning it to the system; else does nothing.

    Every round frees a matrix and allocates one of the same size. Fresh pages for it cost a
    quarter of the round, where clients are many and small.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)

"""Sets TensorFlow up so that results do not depend on the number of cores.

The number of threads inside an operation changes the last bits of a convolution's gradients, so it
is fixed to one. Instead, several clients train at the same time, each on its own device.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from tffl.core.process import cores, silence

INTRA_OP_THREADS = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


@dataclass(frozen=True)
class Runtime:
    """The devices on which clients are trained.

    Attributes:
      devices: TensorFlow device names, one per worker; several workers may share a device.
      intra_op_threads: Number of threads inside an operation; results are reproducible across
        machines only if it is 1.
    """

    devices: tuple[str, ...]
    intra_op_threads: int


def configure(devices: int = 0) -> Runtime:
    """Sets the number of threads, and chooses `devices` local devices (0 chooses all).

    It uses GPUs if there are any; on CPU, each worker gets a single-threaded logical device. In a
    process where TensorFlow has already started, its devices and threads stay as they are and
    workers share them; the results are the same as long as operations are single-threaded.
    """
    silence()
    _keep_freed_memory()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    workers = devices or len(gpus) or cores()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(INTRA_OP_THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(max(workers, cores()))
        if gpus:  # the fastest cuDNN algorithms may add in any order
            tf.config.experimental.enable_op_determinism()
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if not gpus:
            cpu = tf.config.list_physical_devices("CPU")[0]
            logical = [tf.config.LogicalDeviceConfiguration()] * workers
            tf.config.set_logical_device_configuration(cpu, logical)
    except (RuntimeError, ValueError):  # TensorFlow has already started
        pass
    local = _local_devices("GPU") or _local_devices("CPU")
    names = tuple(local[worker % len(local)].name for worker in range(workers))
    return Runtime(names, tf.config.threading.get_intra_op_parallelism_threads())


@cache
def supports_convolution(dtype: str) -> bool:
    """Returns whether convolutions in `bfloat16` or `float16` work on this machine.

    oneDNN supports bfloat16 only on processors, and with settings, that have AVX-512.
    """
    import tensorflow as tf

    try:
        tf.nn.conv2d(tf.zeros((1, 4, 4, 1), dtype), tf.zeros((3, 3, 1, 1), dtype), 1, "VALID")
    except tf.errors.OpError:
        return False
    return True


def _local_devices(kind: str) -> list[Any]:
    """Returns the devices of this process; in a cluster, TensorFlow also lists those of workers."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices(kind)
    return [device for device in devices if not device.name.startswith(("/job:worker", "/job:ps"))]


def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory instead of returning it to the system; other systems ignore it.

    Every round frees a matrix and allocates one of the same size. With many small clients, getting
    new pages for it took a quarter of the round.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)

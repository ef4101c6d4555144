"""What a worker process is: a TensorFlow server, and a function that loads datasets for a chief.

The server runs the graphs that a chief sends. Its name and number in the cluster are the chief's
business; only its port must be the one that the chief knows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tffl.config import Config
from tffl.core.errors import TfflError, UsageError
from tffl.core.process import silence
from tffl.data.federation import Dataset
from tffl.engine.runtime import INTRA_OP_THREADS, configure
from tffl.simulation.cluster.confinement import ANYWHERE, Exposed, confined
from tffl.simulation.cluster.images import answer, refusal

TOKEN = "pyfunc_0"
"""TensorFlow's name of the first Python function of a process, by which a chief calls it."""


class Worker:
    """Serves until the process ends.

    Args:
      host: IPv4 address or name of this machine to be reached at; `0.0.0.0` for all of them.
      port: Where to listen.
      data_dir: Folder of prepared datasets; TFDS's own or `TFFL_DATA_DIR` if None.
      number: Which of this machine's GPUs to use, if it has any.
      say: Hears, in one line, which images it has loaded, or why it is refused.

    Raises:
      UsageError: The port is taken, or the server cannot be confined to `host`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        data_dir: Path | None,
        number: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = f"{host}:{port} on {socket.gethostname()}"
        self._data_dir, self._say = data_dir, say
        self._dataset: tuple[Any, Dataset] | None = None
        self._known = b""
        address = _resolved(host)
        _refuse_taken(port)
        silence()
        import tensorflow as tf

        _choose_device(number)
        configure(1)  # threads are a process' before they are a server's
        self._loader = self._register()
        cluster = tf.train.ClusterSpec({"worker": [f"{address}:{port}"]})
        try:
            with confined(address):
                self._server = tf.distribute.Server(
                    cluster, job_name="worker", task_index=0, config=_session()
                )
        except Exposed:
            raise UsageError(
                f"this system cannot confine TensorFlow's server to {host}: let a firewall guard "
                f"port {port}, and say --host {ANYWHERE}"
            ) from None
        except tf.errors.OpError as error:
            raise TfflError(f"no server at port {port}: {error.message}") from None

    def _register(self) -> Any:
        """Makes the loader known to TensorFlow; it lives as long as what this returns."""
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
        def load(request: tf.Tensor) -> tf.Tensor:
            return tf.numpy_function(self._answer, [request], tf.uint8)

        function = load.get_concrete_function()
        calls = (one for one in function.graph.get_operations() if one.type == "PyFunc")
        tokens = [one.get_attr("token").decode() for one in calls]
        if tokens != [TOKEN]:  # another function of this process came first
            raise TfflError(f"a worker needs a process of its own: TensorFlow calls it {tokens}")
        return function

    def _answer(self, request: bytes) -> np.ndarray:
        try:
            images = answer(request, self.name, self._data_dir, self._load)
        except ValueError as error:
            self._say(f"Refused: {refusal(error)}")
            raise
        if request != self._known:  # a chief asks twice: before round 1, and to train
            self._say(f"Loaded {len(images)} images, the chief's.")
        self._known = request
        return images

    def _load(self, config: Config) -> Dataset:
        from tffl.data.build import load_dataset, loading_key

        key = loading_key(config.data)
        if self._dataset is None or self._dataset[0] != key:
            self._dataset = None  # before the next one is loaded: two may not fit into memory
            self._dataset = key, load_dataset(config.data)
        return self._dataset[1]


def _session() -> Any:
    """Returns a server's thread counts: those of a local device, so that its bits are the same."""
    import tensorflow as tf

    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=INTRA_OP_THREADS,
        inter_op_parallelism_threads=1,
        gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
    )


def _choose_device(number: int) -> None:
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([gpus[number % len(gpus)]], "GPU")


def _resolved(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:
        raise UsageError(f"--host {host} is not allowed: no such name or IPv4 address") from None


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # gRPC shares ports between processes, so the second of two workers would start as well.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ANYWHERE, port))
        except OSError as error:
            raise UsageError(f"--port {port} is not allowed: {error.strerror}") from None

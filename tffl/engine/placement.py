"""Where work runs: each job on one of several local devices, results in the order of the jobs.

A job is a function of a device and nothing that depends on it, so a placement decides about
speed, never about results. `Cluster` is a placement that trains clients on remote workers, and does
everything else as here.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tffl.config import Config
from tffl.engine.threads import run_jobs

Job = TypeVar("Job")
Result = TypeVar("Result")


class DeviceArray:
    """An array that lies where it is used."""

    def __init__(self, array: np.ndarray, devices: Sequence[str]) -> None:
        hosts = {device: "CPU:0" if "CPU" in device.upper() else device for device in devices}
        tensors = {}
        for place in set(hosts.values()):
            with tf.device(place):
                tensors[place] = tf.constant(array)
        self._tensors = {device: tensors[place] for device, place in hosts.items()}
        self._length = len(array)

    def __len__(self) -> int:
        """Length of the array's first axis."""
        return self._length

    def local(self) -> tf.Tensor:
        """Returns the tensor on the device whose strategy is in scope."""
        return self._tensors[_device(tf.distribute.get_strategy())]


class LocalDevices:
    """Runs jobs on local devices, one at a time on each, by a `OneDeviceStrategy` per worker.

    Args:
      devices: TensorFlow device names, one per worker.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.strategies = [tf.distribute.OneDeviceStrategy(device) for device in devices]

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Yields `function(job)` for each job, in order, as results become ready.

        The first error, whichever job it is of, ends all of them and is raised.
        """
        if len(self.strategies) == 1 or len(jobs) == 1:
            for job in jobs:
                yield self._run(self.strategies[0], function, job)
            return
        idle: queue.SimpleQueue[tf.distribute.Strategy] = queue.SimpleQueue()
        for strategy in self.strategies:
            idle.put(strategy)

        def work(job: Job) -> Result:
            strategy = idle.get()
            try:
                return self._run(strategy, function, job)
            finally:
                idle.put(strategy)

        yield from run_jobs(work, jobs, len(self.strategies))

    def each(self, function: Callable[[], Result]) -> list[Result]:
        """Runs `function` once on every device, one after the other; to trace it there."""
        return [self._run(strategy, lambda _: function(), None) for strategy in self.strategies]

    def to_devices(self, array: np.ndarray) -> DeviceArray:
        """Puts an array on the devices: once in host memory, once on each accelerator."""
        return DeviceArray(array, [_device(strategy) for strategy in self.strategies])

    def training_images(self, images: np.ndarray, config: Config) -> DeviceArray:
        """Puts an experiment's training images where its clients are trained."""
        return self.to_devices(images)

    def fill(
        self,
        rows: np.ndarray,
        function: Any,
        start: np.ndarray,
        images: DeviceArray,
        arguments: Callable[[int], Sequence[tf.Tensor]],
    ) -> None:
        """Sets `rows[i] = function(start, images, *arguments(i))`, for every row.

        Args:
          rows: float32 `[n, d]`.
          function: A `tf.function` with an input signature.
          start: float32 `[d]`.
          images: What `pool` returned, or `resident`.
          arguments: Makes a row's own arguments, where it is computed.
        """
        resident = self.to_devices(start)

        def compute(row: int) -> None:
            # Straight into the matrix: no update waits elsewhere for its turn.
            rows[row] = function(resident.local(), images.local(), *arguments(row))

        for _ in self.map(compute, range(len(rows))):
            pass

    @staticmethod
    def _run(
        strategy: tf.distribute.Strategy, function: Callable[[Job], Result], job: Job
    ) -> Result:
        with tf.device(_device(strategy)):
            return strategy.run(function, args=(job,))


def _device(strategy: tf.distribute.Strategy) -> str:
    return strategy.extended.worker_devices[0]

"""Runs each job on one of several local devices, and returns results in the order of the jobs.

The result of a job does not depend on its device, so that a placement changes the speed only.
`Cluster` is a placement that trains clients on remote workers and runs all other jobs locally.
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
    """A copy of an array on each of several devices.

    Args:
      array: The array.
      devices: TensorFlow device names; logical CPU devices share one copy in host memory.
    """

    def __init__(self, array: np.ndarray, devices: Sequence[str]) -> None:
        hosts = {device: "CPU:0" if "CPU" in device.upper() else device for device in devices}
        tensors = {}
        for host in set(hosts.values()):
            with tf.device(host):
                tensors[host] = tf.constant(array)
        self._tensors = {device: tensors[host] for device, host in hosts.items()}
        self._length = len(array)

    def __len__(self) -> int:
        """Length of the array's first axis."""
        return self._length

    def local(self) -> tf.Tensor:
        """Returns the copy on the device whose strategy is in scope."""
        return self._tensors[_device(tf.distribute.get_strategy())]


class LocalDevices:
    """Runs jobs on local devices, with one `OneDeviceStrategy` and one job at a time per worker.

    Args:
      devices: TensorFlow device names, one per worker.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.strategies = [tf.distribute.OneDeviceStrategy(device) for device in devices]

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Yields `function(job)` for each job, in order, as results become ready.

        The first error of any job stops all jobs and is raised.
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
        """Runs `function` once on every device, one after the other, such as to trace it."""
        return [self._run(strategy, lambda _: function(), None) for strategy in self.strategies]

    def to_devices(self, array: np.ndarray) -> DeviceArray:
        """Copies an array to the devices: once to host memory, and once to each accelerator."""
        return DeviceArray(array, [_device(strategy) for strategy in self.strategies])

    def training_images(self, images: np.ndarray, config: Config) -> DeviceArray:
        """Copies the training images of an experiment to where its clients are trained."""
        return self.to_devices(images)

    def fill(
        self,
        rows: np.ndarray,
        function: Any,
        start: np.ndarray,
        images: DeviceArray,
        arguments: Callable[[int], Sequence[tf.Tensor]],
    ) -> None:
        """Sets `rows[i] = function(start, images, *arguments(i))` for every row.

        Args:
          rows: float32 `[n, d]`, which is written to.
          function: A `tf.function` with an input signature.
          start: float32 `[d]`.
          images: What `training_images` or `to_devices` returned.
          arguments: Row number → further arguments; called on the device that computes the row.
        """
        start_copies = self.to_devices(start)

        def compute(row: int) -> None:
            # Written to the matrix at once, so that finished updates take no other memory.
            rows[row] = function(start_copies.local(), images.local(), *arguments(row))

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

"""The chief's side: a placement whose clients are trained by the workers of a cluster.

Clients are scheduled by TensorFlow's `ClusterCoordinator`, which sends each to the next idle
worker, and again to another one if that worker dies. What it lacks is here: it waits for ever for
a worker that hangs, and for the last one that dies. A round that falls silent sends its missing
clients again; when no worker answers any more, the run stops and can be resumed.

Everything else, evaluation, attackers' and detectors' own training included, stays on the chief's
local devices.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import tensorflow as tf

from tffl.config import Config, RuntimeConfig
from tffl.core.errors import TfflError, UsageError, WorkersLost
from tffl.engine.observer import Observer
from tffl.engine.placement import DeviceArray, LocalDevices
from tffl.simulation.cluster.addresses import Addresses, answers, free_port
from tffl.simulation.cluster.confinement import LOOPBACK, Exposed, confined
from tffl.simulation.cluster.delivery import LOST, deliver, next_back
from tffl.simulation.cluster.images import refusal, request
from tffl.simulation.cluster.lookout import TICK, Lookout
from tffl.simulation.cluster.worker import TOKEN

PATIENCE, FACTOR = 5.0, 4.0
"""Silence after which missing clients are sent again: seconds, and times the slowest one so far."""

AHEAD = 2
"""Clients per worker that are scheduled at a time, so that none waits for the chief."""


class WorkerImages(DeviceArray):
    """The training images, which every worker has loaded for itself."""

    def __init__(self, array: np.ndarray, devices: Sequence[str], iterator: Any) -> None:
        super().__init__(array, devices)
        self.iterator = iterator


class Cluster(LocalDevices):
    """Trains clients on remote workers, and does all else on local devices.

    Args:
      devices: Local TensorFlow device names.
      runtime: Where the workers are, and how long to wait for them.
      observer: Hears who is waited for, lost and back.

    Raises:
      UsageError: No worker is named.
      TfflError: None answers.
    """

    def __init__(self, devices: Sequence[str], runtime: RuntimeConfig, observer: Observer) -> None:
        self._runtime, self._observer = runtime, observer
        self._link = connect(runtime, observer)
        self._told: frozenset[str] = frozenset()
        self._slowest: float | None = None
        super().__init__(devices)

    def training_images(self, images: np.ndarray, config: Config) -> WorkerImages:
        """Lets every worker load the training images, and puts them on the local devices.

        Raises:
          UsageError: A worker has other images, or another TensorFlow; by name.
          TfflError: The workers are gone.
        """
        self._observer.phase(f"{len(self._link.workers)} workers load {config.data.dataset}")
        text = request(config, images)
        self._check(text)
        shape = (None, *images.shape[1:])

        def load(_: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(_call_loader(tf.constant(text)), shape)

        def dataset() -> tf.data.Dataset:
            # Cached, so that every `next` hands out the same tensor, without a copy.
            return tf.data.Dataset.range(1).map(load).cache().repeat()

        iterator = iter(self._link.coordinator.create_per_worker_dataset(dataset))
        names = [strategy.extended.worker_devices[0] for strategy in self.strategies]
        return WorkerImages(images, names, iterator)

    def fill(
        self,
        rows: np.ndarray,
        function: Any,
        start: np.ndarray,
        images: DeviceArray,
        arguments: Callable[[int], Sequence[tf.Tensor]],
    ) -> None:
        """Trains all rows remotely, if the workers have the images; see `LocalDevices.fill`.

        Raises:
          WorkersLost: None has answered for `runtime.wait` seconds, or none has finished a client
            for `runtime.time_limit` seconds.
          TfflError: Training failed on a worker.
        """
        if not isinstance(images, WorkerImages):
            super().fill(rows, function, start, images, arguments)
            return
        remote, flat = self._link.remote(function), tf.constant(start)

        def schedule(row: int) -> Any:
            operands = (images.iterator, flat, *arguments(row))
            return self._link.coordinator.schedule(remote, args=operands)

        try:
            self._collect(rows, schedule)
        except TfflError:
            raise
        except Exception as error:  # TensorFlow wraps some in exceptions of no common class
            raise _explained(error) from error

    def _collect(self, rows: np.ndarray, schedule: Callable[[int], Any]) -> None:
        """Schedules every row, and puts what comes back into its place; the first copy counts."""
        back: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        to_do = deque(range(len(rows)))
        sent: dict[int, float] = {}
        again: set[int] = set()
        answered = spoken = time.monotonic()  # when the last row came back, and was sent again
        silence = self._silence()
        while to_do or sent:
            while to_do and len(sent) < AHEAD * len(self._link.workers):
                row = to_do.popleft()
                sent[row] = time.monotonic()
                deliver(row, schedule, back)
            self._look()
            row, value = next_back(back)
            if isinstance(value, np.ndarray):
                if row in sent:
                    rows[row] = value
                    answered = spoken = time.monotonic()
                    taken = answered - sent.pop(row)
                    if row not in again:  # those waited for somebody who hangs
                        self._slowest = max(self._slowest or 0.0, taken)
                    silence = self._silence()
                continue
            if value is not None and not isinstance(value, LOST):
                raise value
            if row in sent:  # it went with a worker, and TensorFlow has not sent it again
                again.add(row)
                to_do.append(row)
                del sent[row]
                time.sleep(TICK / (AHEAD * len(self._link.workers)))  # all that fail: one tick
            now = time.monotonic()
            self._give_up(now - answered)
            if now - spoken > silence:
                for row in sent:
                    deliver(row, schedule, back)
                again.update(sent)
                spoken, silence = now, 2 * silence

    def _silence(self) -> float:
        """Returns how long a round may be silent before its missing clients are sent again."""
        if self._slowest is None:
            return self._runtime.time_limit / 4
        return max(PATIENCE, FACTOR * self._slowest)

    def _look(self) -> None:
        """Tells which workers have gone or come back since the last look."""
        down = frozenset(self._link.lookout.down)
        for worker in sorted(down - self._told):
            self._observer.warning(
                f"worker {worker} does not answer: its clients are trained elsewhere"
            )
        for worker in sorted(self._told - down):
            self._observer.warning(f"worker {worker} is back")
        self._told = down

    def _give_up(self, silence: float) -> None:
        """Raises if there is nobody left to wait for."""
        lookout = self._link.lookout
        if min(silence, lookout.alone()) > self._runtime.wait:
            down = ", ".join(sorted(lookout.down))
            if len(lookout.down) == len(self._link.workers):
                raise WorkersLost(f"the last worker is gone ({down}): start one again")
            raise WorkersLost(
                f"TensorFlow takes workers back only when all are there: start {down or 'them'} "
                "again"
            )
        if silence > self._runtime.time_limit:
            raise WorkersLost(
                f"the workers answer, but none has finished a client for {silence:.0f} s: look "
                "at them, or raise runtime.time_limit"
            )

    def _check(self, text: str) -> None:
        """Lets every worker load the images now: a refusal comes before round 1."""
        back: SimpleQueue[tuple[int, Any]] = SimpleQueue()

        def load(number: int) -> None:
            try:
                with tf.device(f"/job:worker/replica:0/task:{number}/device:CPU:0"):
                    back.put((number, _count(tf.constant(text))))
            except Exception as error:
                back.put((number, error))

        waiting = set(range(len(self._link.workers)))
        for number in waiting:
            threading.Thread(target=load, args=(number,), daemon=True).start()
        began = time.monotonic()
        while waiting:
            self._look()
            with suppress(Empty):
                number, value = back.get(timeout=TICK)
                waiting.discard(number)
                self._refuse(number, value)
            self._give_up(time.monotonic() - began)
            if all(self._link.workers[number] in self._told for number in waiting):
                return  # those that come back later are checked then

    def _refuse(self, number: int, value: Any) -> None:
        if not isinstance(value, Exception) or isinstance(value, tf.errors.UnavailableError):
            return
        if (line := refusal(value)) is not None:
            raise UsageError(f"refused: {line}")
        name = self._link.workers[number]
        if f"key={TOKEN}" in str(value):
            raise UsageError(f"refused: what runs at {name} is not `tffl worker`")
        raise TfflError(f"worker {name} failed: {_first_line(value)}")


@dataclass(frozen=True)
class Link:
    """A process' connection to its workers; TensorFlow allows one.

    Attributes:
      asked: The addresses that were asked for.
      workers: Those that were there.
      coordinator: Sends them work.
      lookout: Knows who answers.
      server: The chief's own parameter server, which is never used, but has to exist.
      functions: What has been traced for the workers, by what it was made of.
    """

    asked: Addresses
    workers: tuple[str, ...]
    coordinator: Any
    lookout: Lookout
    server: Any
    functions: dict[Any, Any] = field(default_factory=dict)

    def remote(self, function: Any) -> Any:
        """Returns a function of a worker's images instead of local ones; the trace is the same."""
        if function not in self.functions:
            start, images, *others = function.input_signature
            signature = [tf.data.IteratorSpec(images), start, *others]

            @tf.function(input_signature=signature, autograph=False)
            def train(iterator: Any, start: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
                return function(start, next(iterator), *arguments)

            self.functions[function] = train
        return self.functions[function]


_links: list[Link] = []


def stuck() -> bool:
    """Says whether TensorFlow may wait for a lost worker, for ever, when this process ends."""
    return any(link.lookout.lost for link in _links)


def connect(runtime: RuntimeConfig, observer: Observer) -> Link:
    """Connects this process to its workers; later calls return the same connection.

    Raises:
      UsageError: No worker is named, or this process works with others already.
      TfflError: None answers.
    """
    asked = Addresses.of(runtime.workers, runtime.parameter_server)
    if _links:
        if _links[0].asked != asked:
            raise UsageError(
                "this process works with other workers already, and TensorFlow cannot change "
                "them: start another process"
            )
        return _links[0]
    workers = _present(asked.workers, runtime.wait, observer)
    # Calls to a worker that has died are to fail at once.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    tf.get_logger().setLevel("CRITICAL")  # what it reports as errors, the coordinator mends
    try:
        with confined(LOOPBACK):
            address = asked.parameter_server or f"{LOOPBACK}:{free_port()}"
            spec = tf.train.ClusterSpec({"worker": list(workers), "ps": [address]})
            own = None if asked.parameter_server else _serve(spec)
            coordinator = _within(runtime.time_limit, lambda: _coordinate(spec))
    except Exposed:
        observer.warning(
            "this system cannot confine TensorFlow's gRPC ports to loopback: whoever reaches this "
            "machine can run code in this process; let a firewall guard it"
        )
    link = Link(asked, workers, coordinator, Lookout(workers), own)
    _links.append(link)
    return link


def _present(workers: Sequence[str], seconds: float, observer: Observer) -> tuple[str, ...]:
    """Waits for all workers, and returns those that have come in time."""
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(min(32, len(workers))) as threads:
        while True:
            there = dict(zip(workers, threads.map(answers, workers), strict=True))
            missing = [worker for worker, present in there.items() if not present]
            if not missing or time.monotonic() > deadline:
                break
            observer.phase(f"waiting for {len(missing)} of {len(workers)} workers")
            time.sleep(TICK)
    if len(missing) == len(workers):
        raise TfflError(
            f"no worker answers at {', '.join(workers)}: start `tffl worker` there, and check "
            "the way to its port"
        )
    if missing:
        observer.warning(
            f"worker {', '.join(missing)} has not come within {seconds:g} s: the run goes on "
            "without, and resuming it asks again"
        )
    return tuple(worker for worker in workers if there[worker])


def _serve(spec: tf.train.ClusterSpec) -> Any:
    return tf.distribute.Server(spec, job_name="ps", task_index=0, config=_one_thread())


def _one_thread() -> Any:
    return tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)


def _coordinate(spec: tf.train.ClusterSpec) -> Any:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    return tf.distribute.coordinator.ClusterCoordinator(strategy)


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Returns what a function returns, which TensorFlow may let wait for ever."""
    back: SimpleQueue[Any] = SimpleQueue()

    def call() -> None:
        try:
            back.put(function())
        except Exception as error:
            back.put(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        value = back.get(timeout=seconds)
    except Empty:
        raise TfflError(f"the workers have not joined within {seconds:g} s") from None
    if isinstance(value, Exception):
        raise TfflError(f"cannot connect to the workers: {_first_line(value)}") from value
    return value


def _call_loader(text: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.PyFunc(input=[text], token=TOKEN, Tout=[tf.uint8])[0]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _count(text: tf.Tensor) -> tf.Tensor:
    """Loads the images where it runs, and returns their number."""
    return tf.shape(_call_loader(text))[0]


def _explained(error: Exception) -> TfflError:
    line = refusal(error)
    if line is not None:
        return UsageError(f"refused: {line}")
    return TfflError(f"training failed on a worker: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]

"""The speed of the training engine: `tffl bench engine`.

Several contenders train the same clients for a round. Each has its own process, because TensorFlow
fixes its threads once per process. Only one process works at a time, and they take turns round by
round, so a drift in the machine's speed affects all of them alike. The results are ratios of
medians.

| contender | trains with |
|---|---|
| engine | `Trainer.train_all` and the mean, as in a simulation: a one-thread device per core |
| engine-one-device | the same on one device that uses all cores |
| bare | a plain compiled Keras loop on each core: the same steps without any federation |
| bare-one-device | one such loop that uses all cores |
| fit | `model.fit` per client, compiled once, with TensorFlow's default threads |
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tffl.config import TrainingConfig
from tffl.studies.bench.process import Contender, linux_bytes

RoundFunction = Callable[[], Any]


@dataclass(frozen=True)
class TrainingWorkload:
    """A round of local training: `cnn` on images of Fashion-MNIST's size, one local epoch."""

    clients: int = 10
    samples: int = 600
    batch_size: int = 64
    precision: str = "float32"
    side: int = 28

    @property
    def images(self) -> int:
        """Training images of a round."""
        return self.clients * self.samples

    @property
    def training(self) -> TrainingConfig:
        """The clients' training config."""
        return TrainingConfig.model_validate(
            {"batch_size": self.batch_size, "precision": self.precision, "learning_rate": 0.01}
        )

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns random images and labels; the speed does not depend on the content.

        Returns:
          Images uint8 `[n, side, side, 1]` and labels int32 `[n]`.
        """
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (self.images, self.side, self.side, 1), dtype=np.uint8)
        return images, rng.integers(0, 10, self.images).astype(np.int32)


def bench_engine(rounds: int = 5, quick: bool = False) -> dict[str, Any]:
    """Compares the engine with a bare compiled loop and with Keras' `fit`.

    Args:
      rounds: Timed rounds of each contender after an untimed first one.
      quick: Whether to do only a tenth of the work, to check that everything runs.

    Returns:
      Images per second, ratios of medians, compile seconds, and peak memory.

    Raises:
      TfflError: A process has died.
    """
    large = TrainingWorkload(samples=60 if quick else 600)
    small = TrainingWorkload(clients=5 if quick else 50, samples=50)
    mixed = replace(large, precision="mixed_bfloat16")
    return {
        "rounds": rounds,
        "cores": _cores(),
        "cpu_has_bfloat16": _has_bfloat16(),
        f"{large.clients}_clients_of_{large.samples}": race(
            {name: (name, large) for name in CONTENDERS}, rounds
        ),
        f"{small.clients}_clients_of_{small.samples}": race(
            {"engine": ("engine", small), "fit": ("fit", small)}, rounds
        ),
        "mixed_bfloat16": race(
            {"engine": ("engine", mixed), "fit": ("fit", mixed), "fit-float32": ("fit", large)},
            rounds,
        ),
        "first_round": {
            f"{clients}_clients": first_round(
                TrainingWorkload(clients=clients, samples=1600 // clients)
            )
            for clients in (10, 100)
        },
        "peak_memory": peak_memory(side=64 if quick else 128),
    }


def race(workloads: Mapping[str, tuple[str, TrainingWorkload]], rounds: int) -> dict[str, Any]:
    """Times contenders that take turns round by round.

    Args:
      workloads: Title → (contender, workload). The first one is compared with the others.
      rounds: Timed rounds of each.

    Returns:
      The images per second of each, and the speed of the first one relative to each other.
    """
    contenders = {title: Contender(_serve, *entry) for title, entry in workloads.items()}
    seconds: dict[str, list[float]] = {title: [] for title in contenders}
    try:
        for contender in contenders.values():
            contender.request()
        for _ in range(rounds):
            for title, contender in contenders.items():
                seconds[title].append(contender.request())
    finally:
        for contender in contenders.values():
            contender.close()
    median = {title: statistics.median(values) for title, values in seconds.items()}
    first, *others = median
    return {
        "images_per_second": {t: workloads[t][1].images / median[t] for t in median},
        f"{first}_against": {title: median[title] / median[first] for title in others},
    }


def first_round(workload: TrainingWorkload) -> dict[str, float]:
    """Returns the seconds of the first round, which traces and compiles, and of a later one."""
    contender = Contender(_serve, "engine", workload)
    try:
        first = contender.request()
        steady = statistics.median(contender.request() for _ in range(3))
    finally:
        contender.close()
    return {"first_seconds": first, "steady_seconds": steady, "compile_seconds": first - steady}


def peak_memory(clients: int = 8, side: int = 128) -> dict[str, float] | None:
    """Measures the peak memory that a round of n clients adds, in weight vectors.

    Images are large and batches small, so weights rather than activations take the memory. The
    first round includes memory for tracing and memory that TensorFlow keeps; later rounds include
    only what they free again. The limit is n + 6.

    Args:
      clients: n.
      side: Height and width of the images in pixels.

    Returns:
      The measurements; None where the system does not report the peak (Linux with glibc does).
    """
    workload = TrainingWorkload(clients=clients, samples=8, batch_size=4, side=side)
    contender = Contender(_serve, "engine", workload)
    try:
        first, steady = contender.request("memory"), contender.request("memory")
    finally:
        contender.close()
    if first is None:
        return None
    size = _weight_bytes(workload)
    return {
        "clients": clients,
        "weight_vector_bytes": size,
        "first_round_weight_vectors": first / size,
        "steady_round_weight_vectors": steady / size,
        "allowed_weight_vectors": clients + 6,
    }


def _serve(name: str, workload: TrainingWorkload, pipe: Connection) -> None:
    train_round = CONTENDERS[name](workload)
    while True:
        request = pipe.recv()
        if request == "memory":
            pipe.send(_peak_of(train_round))
            continue
        began = time.perf_counter()
        train_round()
        pipe.send(time.perf_counter() - began)


def _engine(workload: TrainingWorkload, one_device: bool = False) -> RoundFunction:
    from tffl.engine import runtime

    if one_device:
        runtime.INTRA_OP_THREADS = runtime.cores()
    settings = runtime.configure(1 if one_device else 0)

    import keras

    from tffl.core.layout import WeightLayout
    from tffl.core.updates import Updates
    from tffl.data.federation import ClientData
    from tffl.engine.placement import LocalDevices
    from tffl.engine.training import LocalTraining, Trainer

    keras.config.set_dtype_policy(workload.precision)
    model = _model(workload)
    layout = WeightLayout.of(model)
    placement = LocalDevices(settings.devices)
    pool, labels = workload.draw()
    images = placement.to_devices(pool)
    trainer = Trainer(model, workload.training)
    start = layout.flatten(model.get_weights())
    indices = np.arange(workload.images, dtype=np.int32).reshape(workload.clients, -1)
    clients = [ClientData(rows, labels[rows]) for rows in indices]
    counts = np.full(workload.clients, workload.samples)

    def train_round() -> np.ndarray:
        jobs = [
            LocalTraining.draw(data, 1, 0.01, seed=0, round=1, client=client)
            for client, data in enumerate(clients)
        ]
        deltas = trainer.train_all(start, images, jobs, placement)
        updates = Updates(1, np.arange(len(jobs)), counts, start, deltas, layout)
        return start + updates.mean(counts / counts.sum())

    return train_round


def _bare(workload: TrainingWorkload, one_device: bool = False) -> RoundFunction:
    from tffl.engine import runtime

    if one_device:
        runtime.INTRA_OP_THREADS = runtime.cores()
    devices = runtime.configure(1 if one_device else 0).devices

    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(workload.precision)
    pool, labels = workload.draw()
    images, targets = tf.constant(pool), tf.constant(labels)
    batch = workload.batch_size
    # The same steps as the clients': the last batch of each client is smaller.
    bounds = [
        (client * workload.samples + begin, min(begin + batch, workload.samples) - begin)
        for client in range(workload.clients)
        for begin in range(0, workload.samples, batch)
    ]
    loops = []
    for number, device in enumerate(devices):
        with tf.device(device):
            model = _model(workload)
            optimizer = keras.optimizers.SGD(0.01)
            optimizer.build(model.trainable_variables)
            mine = tf.constant(bounds[number :: len(devices)], tf.int32)
            loops.append((device, _bare_loop(model, optimizer, images, targets), mine))
    workers = ThreadPoolExecutor(len(loops))

    def run(loop: tuple[str, Any, Any]) -> float:
        device, function, steps = loop
        with tf.device(device):
            return float(function(steps))

    return lambda: list(workers.map(run, loops))


def _bare_loop(model: Any, optimizer: Any, images: Any, labels: Any) -> Any:
    import tensorflow as tf

    @tf.function(autograph=False)
    def loop(bounds: tf.Tensor) -> tf.Tensor:
        def body(step: tf.Tensor) -> list[tf.Tensor]:
            begin, size = bounds[step, 0], bounds[step, 1]
            inputs = tf.cast(images[begin : begin + size], tf.float32)
            with tf.GradientTape() as tape:
                logits = model(inputs, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels[begin : begin + size], logits
                )
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            return [step + 1]

        done = tf.while_loop(lambda step: step < tf.shape(bounds)[0], body, [tf.constant(0)])
        return done[0]

    return loop


def _fit(workload: TrainingWorkload) -> RoundFunction:
    from tffl.engine import runtime

    runtime.silence()
    import keras

    keras.config.set_dtype_policy(workload.precision)
    pool, labels = workload.draw()
    model = _model(workload)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    start = model.get_weights()
    total = [np.zeros_like(weights) for weights in start]

    def train_round() -> list[np.ndarray]:
        for weights in total:
            weights[:] = 0
        for client in range(workload.clients):
            rows = slice(client * workload.samples, (client + 1) * workload.samples)
            model.set_weights(start)
            for variable in model.optimizer.variables[2:]:  # all but iteration and learning rate
                variable.assign(np.zeros(variable.shape, variable.dtype))
            model.fit(pool[rows], labels[rows], batch_size=workload.batch_size, verbose=0)
            for mean, weights in zip(total, model.get_weights(), strict=True):
                mean += weights / workload.clients
        return total

    return train_round


CONTENDERS: dict[str, Callable[[TrainingWorkload], RoundFunction]] = {
    "engine": _engine,
    "engine-one-device": lambda workload: _engine(workload, one_device=True),
    "bare": _bare,
    "bare-one-device": lambda workload: _bare(workload, one_device=True),
    "fit": _fit,
}


def _model(workload: TrainingWorkload) -> Any:
    from tffl.models.small_cnn import cnn

    return cnn((workload.side, workload.side, 1), 10, seed=0)


def _peak_of(train_round: RoundFunction) -> int | None:
    """Trains a round and returns by how many bytes resident memory rose at its peak."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if status.exists() else None
    if trim is None or not reset.exists():
        return None
    trim(0)  # return free memory to the system, so that reusing it counts
    reset.write_text("5")  # reset the peak
    before = linux_bytes("self/status", "VmRSS")
    train_round()
    return linux_bytes("self/status", "VmHWM") - before


def _weight_bytes(workload: TrainingWorkload) -> int:
    return sum(int(np.prod(weights.shape)) for weights in _model(workload).weights) * 4


def _cores() -> int:
    from tffl.core.process import cores

    return cores()


def _has_bfloat16() -> bool | None:
    """Returns whether the CPU can multiply bfloat16; None where the system does not report it."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return None
    text = info.read_text()
    return "avx512_bf16" in text or "amx_bf16" in text or " bf16" in text

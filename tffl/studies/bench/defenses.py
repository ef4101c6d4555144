"""The time and memory of the defenses: `tffl bench defenses`.

Each defense judges one round of random updates in its own process, whose peak memory is read
afterwards. It is compared with Flower's implementation, where there is one, and with a naive
version in NumPy (`tffl.studies.bench.naive`). The results are the seconds of the fastest of three
calls with the same input (slow calls are not repeated) and the memory beyond the update matrix. A
defense that takes more than five minutes is stopped.

`nnm` and `bucketing` precede plain averaging. `flcert` is left out, because it adds no work to that
of the rule it wraps; heat-map detectors are measured by `tffl bench maps`. Of the other defenses
that need the network, `deepsight` and `gan-audit` are measured, the latter with images from model
inversion; it has nothing to be compared with.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.data.samples import RootData, Samples
from tffl.defenses import Defense, Server, create_defense, defenses
from tffl.studies.bench.naive import NAIVE, Case
from tffl.studies.bench.process import linux_bytes

CALLS = 3
SLOW = 30.0
"""Seconds after which a call is not repeated."""

LIMIT = 300
"""Seconds after which a rule is stopped: Flower's Bulyan would take hours for 100 clients."""

EARLIER_ROUNDS = {"fldetector": 11, "mud-hog": 3}
"""Rounds judged before the measured one; the work of the other rules does not grow with time."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "coalition": {"images": 0},
    "fldetector": {"start": 12},
}
"""Without images, coalition needs no network; and the first conviction, after which fldetector
restarts, is in the measured round."""

SIZES = {"cnn": ((28, 28, 1), 10), "resnet18": ((32, 32, 3), 10)}
"""Model → image shape and classes: 0.8 and 11.2 million weights."""

NEED_NETWORK = ("deepsight", "gan-audit")
"""Defenses that need the network itself."""

Judge = Callable[[], Any]


@dataclass(frozen=True)
class RandomRound:
    """A generator of rounds of random updates, in which a tenth of the clients are outliers.

    Attributes:
      clients: n.
      layout: The layout of the model.
      model: One of `SIZES`.
    """

    clients: int
    layout: WeightLayout
    model: str = "cnn"

    def common(self, number: int = 1) -> np.ndarray:
        """Returns the vector that all updates of a round share, float32 `[d]`."""
        rng = np.random.default_rng([number, 1])
        return 0.01 * rng.standard_normal(self.layout.size, dtype=np.float32)

    def draw(self, number: int = 1, start: np.ndarray | None = None) -> Updates:
        """Returns random updates, about as far from the shared vector as that is from zero.

        Args:
          number: The round, 1-based.
          start: The global weights, float32 `[d]`; zeros if None.
        """
        rng = np.random.default_rng([number, 0])
        size = self.layout.size
        matrix = np.empty((self.clients, size), dtype=np.float32)
        common = self.common(number)
        noise = 0.01 * rng.standard_normal(size, dtype=np.float32)
        for row in matrix:  # drawing a billion numbers would take longer than most rules
            np.add(np.roll(noise, rng.integers(size)), common, out=row)
        matrix[: self.malicious] *= 3
        ids = np.arange(self.clients)
        counts = np.full(self.clients, 600)
        start = np.zeros(size, dtype=np.float32) if start is None else start
        return Updates(number, ids, counts, start, matrix, self.layout)

    @property
    def malicious(self) -> int:
        """f, the number of malicious clients that the rules assume."""
        return self.clients // 10


def bench_defenses(
    clients: Iterable[int] = (20, 100),
    models: Iterable[str] = tuple(SIZES),
    names: Iterable[str] = (),
    peers: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures defenses.

    Args:
      clients: Numbers of clients.
      models: Names from `SIZES`.
      names: Names of defenses; if empty, all that have a naive version, and gan-audit.
      peers: Whether to measure Flower's and the naive NumPy versions as well.
      progress: Called with a description of each measurement.

    Returns:
      `"100 clients of resnet18"` → defense → `seconds`, `memory_gib` beyond the matrix, `total_gib`
      of the process, and the speed-ups `against_flower` and `against_numpy`; or `error`.

    Raises:
      UsageError: There is no defense of a name.
    """
    chosen = list(names) or list(dict.fromkeys([*NAIVE, *NEED_NETWORK]))
    for name in chosen:
        defenses[name]  # refuses unknown ones before the first minute
    result: dict[str, Any] = {}
    for model in models:
        layout = _layout(model)
        for n in clients:
            title = f"{n} clients of {model}"
            result[title] = {"matrix_gib": round(n * layout.size * 4 / 2**30, 3)}
            for name in chosen:
                progress(f"{title}: {name}")
                result[title][name] = _measure(name, RandomRound(n, layout, model), peers)
    return result


def _layout(model: str) -> WeightLayout:
    """Reads a layout in a separate process, because the model needs TensorFlow."""
    shape, classes = SIZES[model]
    entries = _in_process(_entries, model, shape, classes)
    return WeightLayout(tuple(Entry(*entry) for entry in entries))


def _entries(model: str, shape: tuple[int, int, int], classes: int) -> list[tuple[Any, ...]]:
    from tffl.core.process import silence

    silence()
    from tffl.models import models

    layout = WeightLayout.of(models[model](shape, classes, seed=0))
    return [(entry.name, entry.shape, entry.trainable) for entry in layout.entries]


def _measure(name: str, round: RandomRound, peers: bool) -> dict[str, Any]:
    result = _in_process(_time, "tffl", name, round)
    for peer, table in (("flower", FLOWER), ("numpy", NAIVE)):
        if peers and name in table and "seconds" in result:
            other = _in_process(_time, peer, name, round)
            if "seconds" in other:
                result[f"{peer}_seconds"] = other["seconds"]
                result[f"against_{peer}"] = significant(other["seconds"] / result["seconds"])
            else:
                result[f"{peer}_error"] = other["error"]
    return dict(result)


def _time(kind: str, name: str, round: RandomRound) -> dict[str, Any]:
    """Measures the time and memory of a rule in this process."""
    before = linux_bytes("self/status", "VmRSS")
    _limit_memory()
    _limit_time()
    try:
        defense, case = prepare(name, round)
        judge = {"tffl": _tffl, "flower": _flower, "numpy": _numpy}[kind](name, defense, case)
        seconds = _seconds(judge)
    except Exception as error:  # another library's rule can raise anything
        return {"error": f"{type(error).__name__}: {error}"}
    peak = linux_bytes("self/status", "VmHWM")
    return {
        "seconds": significant(seconds),
        "memory_gib": significant((peak - before - case.rows.nbytes) / 2**30),
        "total_gib": significant(peak / 2**30),
    }


def _seconds(judge: Judge) -> float:
    """Returns the seconds of the fastest call; the first one may have to import a library."""
    fastest = np.inf
    for _ in range(CALLS):
        began = time.perf_counter()
        judge()
        took = time.perf_counter() - began
        fastest = min(fastest, took)
        if took > SLOW:
            break
    return fastest


def prepare(name: str, round: RandomRound) -> tuple[Defense, Case]:
    """Returns a defense, and the case that it and its naive version judge.

    Raises:
      UsageError: The defense does not work with this number of clients or weights.
    """
    count = {"malicious": round.malicious} if defenses.has_option(name, "malicious") else {}
    defense = create_defense(name, {**count, **OPTIONS.get(name, {})})
    defense.check(round.clients, round.layout)
    number = 1 + EARLIER_ROUNDS.get(name, 0)
    trusted = round.common(number)
    root = RootData(
        np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32), lambda start, _: trusted
    )
    model: Any = None
    server = Server(model, round.layout, round.clients, 0, root)
    if name in NEED_NETWORK:
        server = replace(server, **_network(round.model))
        updates = _valid_updates(round, server)
        return defense, Case(updates, server, defense.init(server), round.malicious)
    state, start = defense.init(server), np.zeros(round.layout.size, np.float32)
    for earlier in range(1, number):
        verdict, state = defense.judge(round.draw(earlier, start), server, state)
        start = start + verdict.aggregate
    return defense, Case(round.draw(number, start), server, state, round.malicious)


def _network(name: str) -> dict[str, Any]:
    """Returns a server's model, samples and explainer."""
    from tffl.core.process import silence

    silence()
    from tffl.explain.maps import Explainer
    from tffl.models import models

    shape, classes = SIZES[name]
    images = np.random.default_rng(0).integers(0, 256, (100, *shape), dtype=np.uint8)
    labels = np.arange(len(images), dtype=np.int32) % classes
    model = models[name](shape, classes, seed=0)
    samples = Samples(images, labels, classes)
    return {"model": model, "samples": samples, "explainer": Explainer(model)}


def _valid_updates(round: RandomRound, server: Server) -> Updates:
    """Returns updates of a network's weights that leave its BatchNorm statistics valid."""
    assert server.model is not None
    updates = round.draw(start=round.layout.flatten(server.model.get_weights()))
    updates.matrix[:, ~round.layout.trainable] = 0
    return updates


def _tffl(name: str, defense: Defense, case: Case) -> Judge:
    return lambda: defense.judge(case.updates, case.server, case.state)


def _numpy(name: str, defense: Defense, case: Case) -> Judge:
    return lambda: NAIVE[name](case)


def _flower(name: str, defense: Defense, case: Case) -> Judge:
    layout, counts = case.updates.layout, case.updates.sample_counts.tolist()
    rows = [layout.unflatten(row) for row in case.rows]
    results = list(zip(rows, counts, strict=True))
    return lambda: FLOWER[name](list(results), case.malicious)  # Bulyan empties the list


def _flower_krum(results: Any, malicious: int) -> Any:
    from flwr.server.strategy.aggregate import aggregate_krum

    return aggregate_krum(results, malicious, len(results) - malicious)


def _flower_bulyan(results: Any, malicious: int) -> Any:
    from flwr.server.strategy.aggregate import aggregate_bulyan, aggregate_krum

    return aggregate_bulyan(results, malicious, aggregate_krum, to_keep=0)


def _flower_median(results: Any, malicious: int) -> Any:
    from flwr.server.strategy.aggregate import aggregate_median

    return aggregate_median(results)


def _flower_trimmed_mean(results: Any, malicious: int) -> Any:
    from flwr.server.strategy.aggregate import aggregate_trimmed_avg

    return aggregate_trimmed_avg(results, malicious / len(results))


def _flower_mean(results: Any, malicious: int) -> Any:
    from flwr.server.strategy.aggregate import aggregate

    return aggregate(results)


FLOWER: Mapping[str, Callable[[Any, int], Any]] = {
    "none": _flower_mean,
    "multi-krum": _flower_krum,
    "bulyan": _flower_bulyan,
    "median": _flower_median,
    "trimmed-mean": _flower_trimmed_mean,
}


def _in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a separate process and returns its result, or an error if it dies."""
    context = multiprocessing.get_context("spawn")
    local, remote = context.Pipe()
    process = context.Process(target=_serve, args=(remote, function, arguments), daemon=True)
    process.start()
    remote.close()
    try:
        return local.recv()
    except EOFError:
        return {"error": "the process died: it ran out of memory, or a message above says why"}
    finally:
        process.join()


def _serve(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(function(*arguments))


def _limit_memory() -> None:
    """Limits this process to the available memory (on Linux), so that only this rule fails."""
    available = linux_bytes("meminfo", "MemAvailable")
    if available:
        import resource

        limit = available + linux_bytes("self/status", "VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_time() -> None:
    """Stops a rule that takes longer than `LIMIT`, where the system has a suitable timer."""
    if not hasattr(signal, "setitimer"):
        return

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"took more than {LIMIT} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)


def significant(value: float) -> float:
    """Rounds to three significant digits.

    >>> significant(12.3456), significant(0.0012345)
    (12.3, 0.00123)
    """
    return float(f"{value:.3g}")

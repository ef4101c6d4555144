"""How long every rule takes and what memory it needs: `tffl bench defenses`.

Each rule judges one round of random updates in a process of its own, whose peak of resident memory
is read afterwards. Next to it, where there is one, the same rule of Flower, and a naive version in
NumPy (`tffl.studies.bench.naive`). What is quoted are seconds of the fastest of three calls with
the same input, fewer if they are slow, and memory above the update matrix. After five minutes a
rule is given up.

`nnm` and `bucketing` stand before plain averaging. Left out are `flcert`, which has no work of its
own beyond that of the rule behind it, and detectors of heat maps, which have `tffl bench maps`. Of
rules that look into the network there is `gan-audit`, with images from model inversion and without
anything to compare it with.
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
"""Seconds after which a rule is given up: Flower's Bulyan would take hours for 100 clients."""

EARLIER = {"fldetector": 11}
"""Rounds to be played before the one that is measured: the others' work does not grow with time."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {"fldetector": {"start": 12}}
"""So that the first conviction, after which fldetector begins anew, is in the measured round."""

SIZES = {"cnn": ((28, 28, 1), 10), "resnet18": ((32, 32, 3), 10)}
"""Model → image shape and classes: 0.8 and 11.2 million weights."""

NETWORKS = ("gan-audit",)
"""Rules that look into the network."""

Judge = Callable[[], Any]


@dataclass(frozen=True)
class RandomRound:
    """Updates to be judged: n clients of a model, a tenth of them further out than the others."""

    clients: int
    layout: WeightLayout
    model: str = "cnn"

    def common(self, number: int = 1) -> np.ndarray:
        """Returns what the updates of a round have in common, float32 `[d]`."""
        rng = np.random.default_rng([number, 1])
        return 0.01 * rng.standard_normal(self.layout.size, dtype=np.float32)

    def draw(self, number: int = 1, start: np.ndarray | None = None) -> Updates:
        """Returns random updates, as different from what they have in common as that is from 0."""
        rng = np.random.default_rng([number, 0])
        size = self.layout.size
        matrix = np.empty((self.clients, size), dtype=np.float32)
        common = self.common(number)
        noise = 0.01 * rng.standard_normal(size, dtype=np.float32)
        for row in matrix:  # rolled, as drawing a billion numbers would take longer than most rules
            np.add(np.roll(noise, rng.integers(size)), common, out=row)
        matrix[: self.malicious] *= 3
        ids = np.arange(self.clients)
        counts = np.full(self.clients, 600)
        start = np.zeros(size, dtype=np.float32) if start is None else start
        return Updates(number, ids, counts, start, matrix, self.layout)

    @property
    def malicious(self) -> int:
        """f, of which the rules are told."""
        return self.clients // 10


def measure(
    clients: Iterable[int] = (20, 100),
    models: Iterable[str] = tuple(SIZES),
    names: Iterable[str] = (),
    peers: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures rules.

    Args:
      clients: Numbers of clients.
      models: Of `SIZES`.
      names: Defenses; if empty, all that have a naive version, and gan-audit.
      peers: Also measure Flower and naive NumPy versions.
      progress: Hears what is being measured.

    Returns:
      `"100 clients of resnet18"` → rule → `seconds`, `memory_gib` above the matrix, `total_gib` of
      the process, and `against_flower`, `against_numpy`: how many times faster it is; or `error`.
    """
    chosen = list(names) or [*NAIVE, *NETWORKS]
    result: dict[str, Any] = {}
    for model in models:
        layout = _layout(model)
        for n in clients:
            title = f"{n} clients of {model}"
            result[title] = {"matrix_gib": round(n * layout.size * 4 / 2**30, 3)}
            for name in chosen:
                progress(f"{title}: {name}")
                result[title][name] = _compare(name, RandomRound(n, layout, model), peers)
    return result


def _layout(model: str) -> WeightLayout:
    """Reads a layout in a process that goes away with TensorFlow."""
    shape, classes = SIZES[model]
    entries = _in_process(_entries, model, shape, classes)
    return WeightLayout(tuple(Entry(*entry) for entry in entries))


def _entries(model: str, shape: tuple[int, int, int], classes: int) -> list[tuple[Any, ...]]:
    from tffl.core.process import silence

    silence()
    from tffl.models import models

    layout = WeightLayout.of(models[model](shape, classes, seed=0))
    return [(entry.name, entry.shape, entry.trainable) for entry in layout.entries]


def _compare(name: str, round: RandomRound, peers: bool) -> dict[str, Any]:
    mine = _in_process(_time, "tffl", name, round)
    for peer, table in (("flower", FLOWER), ("numpy", NAIVE)):
        if peers and name in table and "seconds" in mine:
            theirs = _in_process(_time, peer, name, round)
            if "seconds" in theirs:
                mine[f"{peer}_seconds"] = theirs["seconds"]
                mine[f"against_{peer}"] = round_figure(theirs["seconds"] / mine["seconds"])
            else:
                mine[f"{peer}_error"] = theirs["error"]
    return dict(mine)


def _time(kind: str, name: str, round: RandomRound) -> dict[str, Any]:
    """Times a rule in this process, and reads its memory."""
    before = linux_bytes("self/status", "VmRSS")
    _limit_memory()
    _limit_time()
    try:
        defense, case = prepare(name, round)
        judge = {"tffl": _tffl, "flower": _flower, "numpy": _numpy}[kind](name, defense, case)
        seconds = _seconds(judge)
    except Exception as error:  # whatever a rule of another library raises
        return {"error": f"{type(error).__name__}: {error}"}
    peak = linux_bytes("self/status", "VmHWM")
    return {
        "seconds": round_figure(seconds),
        "memory_gib": round_figure((peak - before - case.rows.nbytes) / 2**30),
        "total_gib": round_figure(peak / 2**30),
    }


def _seconds(judge: Judge) -> float:
    """Returns how long the fastest of some calls takes: the first may import a library."""
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
    """Returns a defense, and what it and its naive version are to judge.

    Raises:
      UsageError: The defense refuses that many clients or weights.
    """
    told = {"malicious": round.malicious} if defenses.has_option(name, "malicious") else {}
    defense = create_defense(name, {**told, **OPTIONS.get(name, {})})
    defense.check(round.clients, round.layout)
    number = 1 + EARLIER.get(name, 0)
    trusted = round.common(number)
    root = RootData(
        np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32), lambda start, _: trusted
    )
    model: Any = None
    server = Server(model, round.layout, round.clients, 0, root)
    if name in NETWORKS:
        server = replace(server, **_network(round.model))
        return defense, Case(_sound(round, server), server, defense.init(server), round.malicious)
    state, start = defense.init(server), np.zeros(round.layout.size, np.float32)
    for earlier in range(1, number):
        verdict, state = defense.judge(round.draw(earlier, start), server, state)
        start = start + verdict.aggregate
    return defense, Case(round.draw(number, start), server, state, round.malicious)


def _network(name: str) -> dict[str, Any]:
    """Returns what a server has to look into a network, and test images."""
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


def _sound(round: RandomRound, server: Server) -> Updates:
    """Returns updates of a network's own weights, whose BatchNorm statistics stay as they are."""
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
    """Returns what a function returns in a process of its own; an error as text if it dies."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        return {"error": "the process died, for want of memory or by a message above"}
    finally:
        process.join()


def _serve(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(function(*arguments))


def _limit_memory() -> None:
    """Lets a rule that wants more memory than there is fail alone, where Linux' account is read."""
    available = linux_bytes("meminfo", "MemAvailable")
    if available:
        import resource

        most = available + linux_bytes("self/status", "VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_time() -> None:
    """Interrupts a rule that takes too long, where the system has such a clock."""
    if not hasattr(signal, "setitimer"):
        return

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"took more than {LIMIT} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)


def round_figure(value: float) -> float:
    """Rounds to three significant digits.

    >>> round_figure(12.3456), round_figure(0.0012345)
    (12.3, 0.00123)
    """
    return float(f"{value:.3g}")

"""How long every rule takes and what memory it needs: `tffl bench defenses`.

Each rule judges one round of random updates in a process of its own, whose peak of resident memory
is read afterwards. Next to it, where there is one, the same rule of Flower and a naive NumPy
version. What is quoted are seconds of the faster of two calls, and memory above the update matrix.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tffl.defenses import Server, create_defense, defenses
from tffl.defenses.base import Root
from tffl.federated.layout import Entry, WeightLayout
from tffl.federated.updates import Updates

SIZES = {"cnn": ((28, 28, 1), 10), "resnet18": ((32, 32, 3), 10)}
"""Model → image shape and classes: 0.8 and 11.2 million weights."""

Judge = Callable[[], Any]


@dataclass(frozen=True)
class Round:
    """Updates to be judged: n clients of a model, a tenth of them further out than the others."""

    clients: int
    layout: WeightLayout

    def draw(self) -> Updates:
        """Returns random updates; what a rule does with them does not depend on the clock."""
        rng = np.random.default_rng(0)
        size = self.layout.size
        matrix = np.empty((self.clients, size), dtype=np.float32)
        common = rng.standard_normal(size, dtype=np.float32)
        for row in range(self.clients):
            matrix[row] = rng.standard_normal(size, dtype=np.float32)
            matrix[row] += common
            matrix[row] *= 0.03 if row < self.clients // 10 else 0.01
        ids = np.arange(self.clients)
        counts = np.full(self.clients, 600)
        start = np.zeros(size, dtype=np.float32)
        return Updates(1, ids, counts, start, matrix, self.layout)

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
      names: Defenses; all if empty.
      peers: Also measure Flower and naive NumPy versions.
      progress: Hears what is being measured.

    Returns:
      `"100 clients of resnet18"` → rule → `seconds`, `memory_gib` above the matrix, `total_gib` of
      the process, and `against_flower`, `against_numpy`: how many times faster it is; or `error`.
    """
    chosen = list(names) or [name for name in defenses if _judges(name)]
    result: dict[str, Any] = {}
    for model in models:
        layout = _layout(model)
        for n in clients:
            title = f"{n} clients of {model}"
            result[title] = {"matrix_gib": round(n * layout.size * 4 / 2**30, 3)}
            for name in chosen:
                progress(f"{title}: {name}")
                result[title][name] = _compare(name, Round(n, layout), peers)
    return result


def _judges(name: str) -> bool:
    from tffl.defenses.wrapper import Wrapper

    return name != "flcert" or not issubclass(defenses[name], Wrapper)


def _layout(model: str) -> WeightLayout:
    """Reads a layout in a process that goes away with TensorFlow."""
    shape, classes = SIZES[model]
    entries = _in_process(_entries, model, shape, classes)
    return WeightLayout(tuple(Entry(*entry) for entry in entries))


def _entries(model: str, shape: tuple[int, int, int], classes: int) -> list[tuple[Any, ...]]:
    from tffl.federated.runtime import silence

    silence()
    from tffl.models import models

    layout = WeightLayout.of(models[model](shape, classes, seed=0))
    return [(entry.name, entry.shape, entry.trainable) for entry in layout.entries]


def _compare(name: str, round: Round, peers: bool) -> dict[str, Any]:
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


def _time(kind: str, name: str, round: Round) -> dict[str, Any]:
    """Times a rule in this process, and reads its memory."""
    updates = round.draw()
    before = _resident()
    judge = {"tffl": _tffl, "flower": _flower, "numpy": _numpy}[kind](name, updates, round)
    try:
        seconds = min(_seconds(judge) for _ in range(2 if kind == "tffl" else 1))
    except Exception as error:  # whatever a rule of another library raises
        return {"error": f"{type(error).__name__}: {error}"}
    peak = _peak()
    return {
        "seconds": round_figure(seconds),
        "memory_gib": round_figure((peak - before) / 2**30),
        "total_gib": round_figure(peak / 2**30),
    }


def _seconds(judge: Judge) -> float:
    began = time.perf_counter()
    judge()
    return time.perf_counter() - began


def _tffl(name: str, updates: Updates, round: Round) -> Judge:
    told = {"malicious": round.malicious} if defenses.has_option(name, "malicious") else {}
    defense = create_defense(name, told)
    defense.check(len(updates), updates.layout)
    trusted = updates.row(len(updates) - 1).copy()
    root = Root(np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32), lambda start, _: trusted)
    model: Any = None  # no rule measured here looks into the network
    server = Server(model, updates.layout, len(updates), 0, root)
    state = defense.init(server)

    def judge() -> None:
        nonlocal state
        _, state = defense.judge(updates, server, state)

    return judge


def _flower(name: str, updates: Updates, round: Round) -> Judge:
    rows = [updates.layout.unflatten(row) for row in updates.matrix]
    results = [(row, 600) for row in rows]
    return lambda: FLOWER[name](results, round.malicious)


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


def _numpy(name: str, updates: Updates, round: Round) -> Judge:
    return lambda: NAIVE[name](updates.matrix, round.malicious)


def naive_krum_scores(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns Krum's scores by a loop over pairs, float64 `[n]`."""
    n = len(rows)
    distances = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            distances[i, j] = distances[j, i] = np.sum((rows[i] - rows[j]) ** 2, dtype=np.float64)
    return np.sort(distances, axis=1)[:, 1 : n - malicious - 1].sum(axis=1)


def naive_multi_krum(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns the mean of the n − f rows of lowest score."""
    best = np.argsort(naive_krum_scores(rows, malicious))[: len(rows) - malicious]
    return rows[best].mean(axis=0)


def naive_krum(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns the row of lowest score."""
    return rows[np.argmin(naive_krum_scores(rows, malicious))]


def naive_trimmed_mean(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns the mean of each column's values but the f largest and f smallest."""
    return np.sort(rows, axis=0)[malicious : len(rows) - malicious].mean(axis=0)


def naive_geometric_median(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns the smoothed Weiszfeld iteration's result after 3 steps."""
    center = rows.mean(axis=0)
    for _ in range(3):
        weights = 1 / np.maximum(np.linalg.norm(rows - center, axis=1), 1e-6)
        center = (weights[:, None] * rows).sum(axis=0) / weights.sum()
    return center


def naive_norm_clipping(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns the mean of rows clipped to their median norm."""
    norms = np.linalg.norm(rows, axis=1)
    return (rows * np.minimum(1, np.median(norms) / norms)[:, None]).mean(axis=0)


def naive_centered_clipping(rows: np.ndarray, malicious: int) -> np.ndarray:
    """Returns one step of centered clipping from zero."""
    return naive_norm_clipping(rows, malicious)


NAIVE: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "none": lambda rows, malicious: rows.mean(axis=0),
    "krum": naive_krum,
    "multi-krum": naive_multi_krum,
    "median": lambda rows, malicious: np.median(rows, axis=0),
    "trimmed-mean": naive_trimmed_mean,
    "geometric-median": naive_geometric_median,
    "norm-clipping": naive_norm_clipping,
    "centered-clipping": naive_centered_clipping,
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


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    """Returns bytes from Linux' account of this process; 0 elsewhere."""
    file = Path("/proc/self/status")
    if not file.exists():
        return 0
    line = next(line for line in file.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def round_figure(value: float) -> float:
    """Rounds to three significant digits.

    >>> round_figure(12.3456), round_figure(0.0012345)
    (12.3, 0.00123)
    """
    return float(f"{value:.3g}")

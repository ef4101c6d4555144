"""How long items take on this machine: a few training steps, timed, times the work.

    seconds of a run ≈ rounds · (images trained / training rate + images tested / test rate)

Rates are measured once for each network and image size, with the engine that a simulation uses,
and kept in the user's cache folder. Attacks and defenses come on top: where runs of the same
experiment are recorded, their seconds are taken instead.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tffl.config import Config
from tffl.core.atomic import write_text
from tffl.studies.benchmark import Cell
from tffl.studies.benchmark_table import mean
from tffl.studies.reproduce.measure import Record

if TYPE_CHECKING:
    import keras

    from tffl.engine.placement import LocalDevices

DATASETS = {
    "digits": (1437, 360, 28, 1, 10),
    "mnist": (60_000, 10_000, 28, 1, 10),
    "fashion_mnist": (60_000, 10_000, 28, 1, 10),
    "cifar10": (50_000, 10_000, 32, 3, 10),
    "cifar100": (50_000, 10_000, 32, 3, 100),
    "svhn_cropped": (73_257, 26_032, 32, 3, 10),
    "gtsrb": (39_209, 12_630, 32, 3, 43),
}
"""Training and test images, side, channels, classes."""

SMALL_SIDE, SMALL_BATCH = 64, 8
"""Images larger than this are timed in batches of that size: one of 64 can take a minute."""
TIMED = 1.0
"""Seconds of training that are enough to go by."""


@dataclass(frozen=True)
class Rate:
    """How fast a network is on this machine.

    Attributes:
      train: Images per second in training, all devices together.
      test: Images per second in evaluation.
      compile: Seconds until both are compiled.
    """

    train: float
    test: float
    compile: float


@dataclass(frozen=True)
class Workload:
    """What a rate depends on."""

    model: str
    side: int
    channels: int
    classes: int
    batch: int
    optimizer: str
    precision: str

    @classmethod
    def of(cls, config: Config) -> Workload:
        """Returns an experiment's."""
        _, _, side, channels, classes = DATASETS[config.data.dataset.partition("/")[0]]
        chosen, training = config.data.image_size or side, config.training
        return cls(
            config.model.name,
            chosen,
            channels,
            classes,
            training.batch_size if chosen <= SMALL_SIDE else SMALL_BATCH,
            training.optimizer,
            training.precision,
        )

    @property
    def key(self) -> str:
        """Its name in the cache."""
        return " ".join(map(str, asdict(self).values()))


class Rates:
    """Rates of this machine, measured when they are first needed."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_file()

    @cached_property
    def _known(self) -> dict[str, Rate]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: Rate(**values) for key, values in stored[_machine()].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def lacking(self, workloads: Iterable[Workload]) -> list[Workload]:
        """Returns those that have to be measured, each once."""
        return [w for w in dict.fromkeys(workloads) if w.key not in self._known]

    def measure(self, workloads: Sequence[Workload], announce: Callable[[Workload], None]) -> None:
        """Measures rates, and keeps each at once."""
        for workload in workloads:
            announce(workload)
            self._known[workload.key] = measure(workload)
            stored = {_machine(): {key: asdict(rate) for key, rate in self._known.items()}}
            write_text(self.path, json.dumps(stored, indent=2) + "\n")

    def of(self, workload: Workload) -> Rate | None:
        """Returns a rate, if it is known."""
        return self._known.get(workload.key)


def cache_file() -> Path:
    """Returns where rates are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "tffl" / "rates.json"


def seconds(cells: Sequence[Cell], rates: Rates, recorded: Record | None = None) -> float | None:
    """Returns how long runs take, one after the other; None if a rate is unknown.

    Args:
      cells: The runs.
      rates: Of this machine.
      recorded: Runs of the same experiment and scale, if there are any.
    """
    known = _recorded_seconds(recorded)
    total, compiled = 0.0, set()
    for cell in cells:
        own = known.get((cell.setting, cell.defense)) or known.get((cell.setting, ""))
        if own is not None:
            total += own
            continue
        workload = Workload.of(cell.config)
        rate = rates.of(workload)
        if rate is None:
            return None
        total += _run_seconds(cell.config, rate)
        total += 0.0 if workload in compiled else rate.compile
        compiled.add(workload)
    return total


def measure(workload: Workload) -> Rate:
    """Times training, a client on each device, and evaluation on random images."""
    from tffl.engine.runtime import configure

    names = configure().devices  # before anything imports TensorFlow, which would be loud

    from tffl.config import build
    from tffl.core.layout import WeightLayout
    from tffl.data.federation import ClientData
    from tffl.engine.placement import LocalDevices
    from tffl.engine.training import LocalTraining, Trainer
    from tffl.simulation.shared_resources import build_model

    placement = LocalDevices(names)
    devices, batch = len(names), workload.batch
    config: Config = build(
        {
            "model": {"name": workload.model},
            "training": {
                "batch_size": batch,
                "optimizer": workload.optimizer,
                "precision": workload.precision,
            },
        }
    )
    shape = (workload.side, workload.side, workload.channels)
    model = build_model(config, shape, workload.classes)
    generator = np.random.default_rng(0)
    pool = generator.integers(0, 256, (devices * batch, *shape), dtype=np.uint8)
    images = placement.to_devices(pool)
    labels = generator.integers(0, workload.classes, len(pool)).astype(np.int32)
    rows = np.arange(len(pool), dtype=np.int32).reshape(devices, batch)
    start = WeightLayout.of(model).flatten(model.get_weights())
    trainer = Trainer(model, config.training)

    def train(epochs: int) -> float:
        jobs = [
            LocalTraining.draw(ClientData(r, labels[r]), epochs, 1e-3, seed=0, round=1, client=i)
            for i, r in enumerate(rows)
        ]
        began = time.perf_counter()
        trainer.train_all(start, images, jobs, placement)
        return time.perf_counter() - began

    first = train(1)
    once = train(1)
    epochs = 1
    while once < TIMED and epochs < 64:
        epochs *= 2
        once = train(epochs)
    test, compiling = _test_rate(model, pool, labels, start, placement)
    return Rate(epochs * len(pool) / once, test, first + compiling)


def _test_rate(
    model: keras.Model,
    pool: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    placement: LocalDevices,
) -> tuple[float, float]:
    """Returns images per second in evaluation, and the seconds of the first pass."""
    from tffl.engine.evaluation import Evaluator

    evaluator = Evaluator(model)
    repeat = -(-200 // len(pool)) if pool.shape[1] <= SMALL_SIDE else 1
    images = placement.to_devices(np.repeat(pool, repeat, axis=0))
    answers = np.repeat(labels, repeat)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        evaluator.evaluate(start[None], images, answers, placement)
        took.append(time.perf_counter() - began)
    return len(answers) / took[1], took[0]


def _run_seconds(config: Config, rate: Rate) -> float:
    train, test, *_ = DATASETS[config.data.dataset.partition("/")[0]]
    data, federation = config.data, config.federation
    pool = min(train, data.train_limit or train) - data.server_samples
    share = federation.participant_count / federation.clients
    trained = pool * share * config.training.local_epochs
    tested = min(test, data.test_limit or test)
    return federation.rounds * (trained / rate.train + tested / rate.test)


def _recorded_seconds(recorded: Record | None) -> Mapping[tuple[str, str], float]:
    """Returns (setting, defense) → mean seconds of a run; of all defenses for ""."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in recorded.runs if recorded else ():
        if row["seconds"] is not None and not row["error"]:
            for defense in (row["defense"], ""):
                found.setdefault((row["setting"], defense), []).append(row["seconds"])
    return {key: mean(values) for key, values in found.items()}


def _machine() -> str:
    """Names the machine: rates of another one, or of another TensorFlow, do not hold."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from tffl.core.process import cores

    try:
        tensorflow = version("tensorflow")
    except PackageNotFoundError:  # such as tensorflow-cpu in the place of tensorflow
        tensorflow = ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return f"{platform.node()} {platform.machine()} {cores()} cores, GPUs {visible}, {tensorflow}"


def duration(value: float | None) -> str:
    """Writes a duration.

    >>> duration(40), duration(600), duration(9000), duration(800000), duration(None)
    ('40 s', '10 min', '2.5 h', '9 days', '–')
    """
    if value is None:
        return "–"
    if value < 90:
        return f"{value:.0f} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    if value < 48 * 3600:
        return f"{value / 3600:.1f} h"
    return f"{value / 86400:.0f} days"

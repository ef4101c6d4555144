"""What clients cost that are registered and do not take part: `tffl bench clients`.

The same experiment, with as many participants a round, among ever more registered clients. Each
runs in a process of its own, because a process' peak of memory never falls. The clients are
`sampled` from digits and train `lenet5`; everything that a run writes in a round is written.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tffl.callbacks.base import Callback, Round, Start
from tffl.core.errors import TfflError, require
from tffl.studies.bench.process import DIED, linux_bytes

REGISTERED = (1_000, 100_000, 1_000_000)
"""How many clients are registered."""


@dataclass(frozen=True)
class Workload:
    """An experiment of which only the number of registered clients changes.

    Attributes:
      participants: Clients that train in a round.
      samples: What each of them holds.
      rounds: Timed rounds, after one that is not counted.
      malicious: Clients that flip labels, whose poisoned data is kept.
      defense: Its name.
    """

    participants: int = 100
    samples: int = 50
    rounds: int = 3
    malicious: int = 0
    defense: str = "none"

    def config(self, registered: int) -> dict[str, Any]:
        """Returns the experiment with so many registered clients."""
        return {
            "data": {"partition": "sampled", "samples_per_client": self.samples},
            "federation": {
                "clients": registered,
                "participants": self.participants,
                "malicious": self.malicious,
                "rounds": self.rounds + 1,
            },
            "model": {"name": "lenet5"},
            "attack": {"name": "label-flip" if self.malicious else "none"},
            "defense": {"name": self.defense},
            "record": {"tensorboard": False, "export": False, "figures": False},
        }


class Clock(Callback):
    """Notes when rounds begin and end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def start(self, start: Start) -> None:
        """Notes when round 1 begins."""
        self.times.append(time.perf_counter())

    def round(self, round: Round) -> None:
        """Notes the end of a round."""
        self.times.append(time.perf_counter())


def clients(
    registered: Sequence[int] = REGISTERED,
    workload: Workload | None = None,
    phase: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures an experiment with ever more registered clients.

    Args:
      registered: How many there are, in turn.
      workload: The experiment.
      phase: Hears what is being measured.

    Returns:
      For each number, seconds of the median round after the first, seconds before round 1, and the
      peak of the process' memory; and how many times the first number's the last one's are.

    Raises:
      UsageError: There are fewer clients than participants.
      TfflError: A process has died.
    """
    workload = workload or Workload()
    least = max(workload.participants, workload.malicious)
    for number in registered:
        require(number >= least, f"--clients {number} is not allowed: give at least {least}")
    figures = {}
    for number in registered:
        phase(f"{number:,} clients")
        figures[number] = _apart(number, workload)
    first, last = figures[registered[0]], figures[registered[-1]]
    growth = {
        key: None if last[key] is None else last[key] / first[key]
        for key in ("seconds_per_round", "peak_mib")
    }
    return {
        "participants": workload.participants,
        "rounds": workload.rounds,
        **{f"{number}_clients": figure for number, figure in figures.items()},
        "last_against_first": growth,
    }


def measure(registered: int, workload: Workload) -> dict[str, float | None]:
    """Runs the experiment in this process; its peak of memory is that of all it ever did."""
    from tffl.simulation.simulation import simulate

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        simulate(workload.config(registered), Path(folder) / "run", callbacks=[clock])
    first, *ends = clock.times
    rounds = [end - start for start, end in pairwise(ends)]
    return {
        "seconds_per_round": statistics.median(rounds),
        "seconds_before_round_1": first - began,
        "peak_mib": linux_bytes("self/status", "VmHWM") / 2**20 or None,
    }


def _apart(registered: int, workload: Workload) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, registered, workload).result()
        except BrokenProcessPool:
            raise TfflError(DIED) from None

"""The cost of registered clients that do not take part: `tffl bench clients`.

The same experiment runs with more and more registered clients but the same number of participants
per round. Each run has its own process, because the peak memory of a process never falls. The
clients are `sampled` from digits and train `lenet5`, and each round writes its tables as usual.
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
"""Numbers of registered clients."""


@dataclass(frozen=True)
class ClientsWorkload:
    """An experiment in which only the number of registered clients varies.

    Attributes:
      participants: Clients that train in a round.
      samples: Samples of each client.
      rounds: Timed rounds after an untimed first one.
      malicious: Clients that flip labels; their poisoned data stays in memory.
      defense: The name of the defense.
    """

    participants: int = 100
    samples: int = 50
    rounds: int = 3
    malicious: int = 0
    defense: str = "none"

    def config(self, registered: int) -> dict[str, Any]:
        """Returns the config of the experiment.

        Args:
          registered: The number of registered clients.
        """
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


class RoundClock(Callback):
    """Records when rounds begin and end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def start(self, start: Start) -> None:
        """Records the beginning of the first round."""
        self.times.append(time.perf_counter())

    def round(self, round: Round) -> None:
        """Records the end of a round."""
        self.times.append(time.perf_counter())


def bench_clients(
    registered: Sequence[int] = REGISTERED,
    workload: ClientsWorkload | None = None,
    phase: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures an experiment with several numbers of registered clients.

    Args:
      registered: The numbers of registered clients.
      workload: The experiment.
      phase: Called with a description of each measurement.

    Returns:
      For each number: the seconds of the median round after the first, the seconds before round 1,
      and the peak memory of the process. Also the ratios of the last number to the first.

    Raises:
      UsageError: There are fewer clients than participants.
      TfflError: A process has died.
    """
    workload = workload or ClientsWorkload()
    least = max(workload.participants, workload.malicious)
    for number in registered:
        require(number >= least, f"--clients {number} is not allowed: give at least {least}")
    measured = {}
    for number in registered:
        phase(f"{number:,} clients")
        measured[number] = _measure_in_own_process(number, workload)
    first, last = measured[registered[0]], measured[registered[-1]]
    growth = {
        key: None if last[key] is None else last[key] / first[key]
        for key in ("seconds_per_round", "peak_mib")
    }
    return {
        "participants": workload.participants,
        "rounds": workload.rounds,
        **{f"{number}_clients": result for number, result in measured.items()},
        "last_against_first": growth,
    }


def measure(registered: int, workload: ClientsWorkload) -> dict[str, float | None]:
    """Runs the experiment in this process, whose peak memory includes everything it did before.

    Args:
      registered: The number of registered clients.
      workload: The experiment.

    Returns:
      The seconds of the median round after the first, the seconds before round 1, and the peak
      memory in MiB (None where the system does not report it).
    """
    from tffl.simulation.simulation import simulate

    clock = RoundClock()
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


def _measure_in_own_process(registered: int, workload: ClientsWorkload) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, registered, workload).result()
        except BrokenProcessPool:
            raise TfflError(DIED) from None

"""What evaluating less often saves: `tffl bench evaluation`.

One experiment runs with `record.evaluate_every = 1` and with another value, in turns, after an
untimed run that compiles. Each run writes its directory, as a user's would.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from tffl.config import Config, load, override
from tffl.config.reading import build
from tffl.core.errors import require
from tffl.studies.bench.clients import RoundClock


def bench_evaluation(
    config: Config | None = None, every: int = 5, repeats: int = 5
) -> dict[str, Any]:
    """Measures the rounds of an experiment with all evaluations and with some.

    Args:
      config: The experiment; by default quickstart.
      every: The value of `record.evaluate_every` that is compared with 1.
      repeats: Timed runs of each.

    Returns:
      `seconds` of all rounds and the share of `evaluation` in them, medians by `every_…`, and
      `ratio`, how many times as long the rounds take with all evaluations.

    Raises:
      UsageError: `every` is 1.
    """
    from tffl.simulation.shared_resources import SharedResources

    require(every > 1, f"--every {every} is not allowed: it is compared with 1, so give 2 or more")
    config, shared = config or load("quickstart"), SharedResources()
    _run(config, 1, shared)
    found: dict[str, list[tuple[float, float]]] = {"every_1": [], f"every_{every}": []}
    for _ in range(repeats):
        for number in (1, every):
            found[f"every_{number}"].append(_run(config, number, shared))
    seconds, evaluation = (
        {name: statistics.median(pair[i] for pair in pairs) for name, pairs in found.items()}
        for i in (0, 1)
    )
    return {
        "rounds": config.federation.rounds,
        "model": config.model.name,
        "dataset": config.data.dataset,
        "every": every,
        "repeats": repeats,
        "seconds": seconds,
        "evaluation": {name: evaluation[name] / seconds[name] for name in seconds},
        "ratio": seconds["every_1"] / seconds[f"every_{every}"],
    }


def _run(config: Config, every: int, shared: Any) -> tuple[float, float]:
    """Returns the seconds of a run's rounds, and those of its evaluations."""
    from tffl.simulation.simulation import simulate

    clock = RoundClock()
    changed: Config = build(override(config.model_dump(), {"record.evaluate_every": every}))
    with tempfile.TemporaryDirectory() as folder:
        run = simulate(changed, Path(folder) / "run", callbacks=[clock], shared=shared)
    return clock.times[-1] - clock.times[0], float(run.rounds["evaluate_seconds"].sum())

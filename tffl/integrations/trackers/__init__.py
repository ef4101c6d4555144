"""Callbacks that hand a run to an experiment tracker, each through the tracker's own package.

    tffl.simulate(config, "runs/one", callbacks=[MLflow()])

They log the config's keys as parameters, the columns of `rounds.csv` by round, the summary, and the
tables of the run directory. What a tracker cannot begin ends the run before round 1. If it fails
later, there is one warning, and the run goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tffl.core.errors import unknown
from tffl.integrations.trackers.base import Tracker
from tffl.integrations.trackers.mlflow import MLflow
from tffl.integrations.trackers.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {"mlflow": MLflow, "wandb": WandB}
"""Name → callback."""

__all__ = ["TRACKERS", "MLflow", "Tracker", "WandB", "named_trackers"]


def named_trackers(names: Iterable[str]) -> list[Tracker]:
    """Returns trackers with their own defaults.

    Raises:
      UsageError: A name is unknown, or a tracker's package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
    return [TRACKERS[name]() for name in dict.fromkeys(names)]

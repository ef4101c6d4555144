"""A prolonged run equals a run that was longer from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tffl.callbacks import Callback, Round
from tffl.config import build, load, override
from tffl.core.errors import UsageError
from tffl.simulation.shared_resources import SharedResources
from tffl.simulation.simulation import simulate

SHARED = SharedResources()
BASE: dict[str, Any] = {
    "data": {"train_limit": 200, "test_limit": 50},
    "federation": {"clients": 5, "malicious": 1},
    "model": {"name": "lenet5"},
    "training": {"schedule": "exponential", "decay": 0.5},
    "attack": {"name": "label-flip+mimic", "scale": 2.0, "until_round": 2},
    "defense": {"name": "bias-anomaly", "window": 2, "votes": 1},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


def run(path: Path, rounds: int, **options: Any) -> None:
    values = override(BASE, {"federation.rounds": rounds})
    simulate(build(values), path, shared=SHARED, **options)


def tables(path: Path) -> list[str]:
    read = [pd.read_csv(path / name, dtype=str) for name in ("rounds.csv", "clients.csv")]
    return [frame.loc[:, ~frame.columns.str.endswith("_seconds")].to_csv() for frame in read]


class Stop(Callback):
    def round(self, round: Round) -> None:
        raise KeyboardInterrupt


def test_prolonged_or_shortened_run_equals_a_run_of_that_length(tmp_path: Path) -> None:
    run(tmp_path / "whole", 3)
    run(tmp_path / "longer", 2)
    run(tmp_path / "longer", 3, resume=True)
    assert tables(tmp_path / "longer") == tables(tmp_path / "whole")
    assert load(tmp_path / "longer" / "config.toml") == load(tmp_path / "whole" / "config.toml")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "shorter", 9, callbacks=[Stop()])
    run(tmp_path / "shorter", 3, resume=True)
    assert tables(tmp_path / "shorter") == tables(tmp_path / "whole")

    with pytest.raises(UsageError, match="has played 3 rounds already"):
        run(tmp_path / "longer", 2, resume=True)
    assert tables(tmp_path / "longer") == tables(tmp_path / "whole")

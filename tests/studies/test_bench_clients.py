"""`tffl bench clients`, and a run with a million registered clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tffl
from tffl.core.errors import UsageError
from tffl.studies.bench.clients import ClientsWorkload, bench_clients, measure


def test_a_million_clients_of_which_ten_take_part(tmp_path: Path):
    config = ClientsWorkload(participants=10, samples=20, rounds=1, malicious=50).config(1_000_000)
    config["federation"]["malicious_participants"] = 2
    config["defense"] = {"name": "update-consensus", "window": 2, "votes": 2}
    config["data"]["test_limit"] = 50
    run = tffl.simulate(config, tmp_path / "run")
    table = run.clients
    assert table.groupby("round").size().tolist() == [10, 10]
    assert (table["samples"] == 20).all() and table["client"].max() > 100_000
    assert table.groupby("round")["malicious"].sum().tolist() == [2, 2]
    assert len(run.summary["malicious_clients"]) == 50
    assert not (tmp_path / "run" / "split.csv").exists()
    sizes = [file.stat().st_size for file in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(sizes) < 4_000_000  # two bytes for each client's votes, and the model

    (tmp_path / "run" / "summary.json").unlink()
    resumed = tffl.simulate(config, tmp_path / "run", resume=True)
    for a, b in zip(run.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_figures_of_a_small_measurement():
    figures = measure(500, ClientsWorkload(participants=4, samples=8, rounds=2))
    assert figures["seconds_per_round"] > 0 and figures["seconds_before_round_1"] > 0
    assert figures["peak_mib"] is None or figures["peak_mib"] > 100


def test_fewer_clients_than_participants_are_refused():
    with pytest.raises(UsageError, match="--clients 50 is not allowed: give at least 100"):
        bench_clients((50,))

"""Benchmarks: the plan, the grid of runs, what is repeated and what is not, the tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tffl.core.errors import UsageError
from tffl.simulation import simulation
from tffl.studies import benchmark
from tffl.studies.benchmark_table import DefenseSummary, interval, markdown, summaries, worst

PLAN = """
seeds = [0, 1]
attacks = [{ name = "patch-backdoor", scale = 5.0, label = "patch x 5" }]
defenses = ["bias-anomaly"]

[experiment.data]
train_limit = 200
test_limit = 50
[experiment.federation]
clients = 5
rounds = 1
[experiment.model]
name = "lenet5"

[settings.iid]
[settings."two clients"]
"federation.participants" = 2
"""


@pytest.fixture
def cells(tmp_path: Path) -> list[benchmark.Cell]:
    (tmp_path / "plan.toml").write_text(PLAN)
    return benchmark.load(tmp_path / "plan.toml")


def test_a_plan_is_a_grid_with_its_baselines(cells: list[benchmark.Cell]) -> None:
    assert len(cells) == 2 * 2 * 2 * 2
    assert {(cell.attack, cell.defense) for cell in cells} == {
        ("none", "none"),
        ("none", "bias-anomaly"),
        ("patch x 5", "none"),
        ("patch x 5", "bias-anomaly"),
    }
    attacked = next(cell for cell in cells if cell.attack == "patch x 5")
    assert attacked.config.attack.name == "patch-backdoor"
    assert attacked.config.attack.options["scale"] == 5.0
    second = next(cell for cell in cells if cell.setting == "two clients" and cell.seed == 1)
    assert (second.config.federation.participants, second.config.seed) == (2, 1)
    assert second.config.federation.clients == 5
    assert len({cell.path for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ('attacks = ["label-flop"]\ndefenses = []', "unknown attack 'label-flop'"),
        ("attacks = []\ndefenses = [{ k = 1 }]", "has no name"),
        ('attacks = ["label-flip", "label-flip"]\ndefenses = []', "two entries are called"),
        ("attacks = []\ndefenses = []\nseeds = []", "seeds"),
        ("attacks = []", "defenses is required"),
        ("attacks = []\ndefenses = []\nrounds = 3", "unknown config key 'rounds'"),
        ('attacks = []\ndefenses = []\n[settings.a]\n"data.bta" = 1', "data.bta"),
        ('attacks=[]\ndefenses=[]\n[settings."a b"]\n[settings."a-b"]', "two runs"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(tmp_path: Path, plan: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(plan)
    with pytest.raises(UsageError, match=message) as error:
        benchmark.load(tmp_path / "plan.toml")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A benchmark that was interrupted in its third run, and continued."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "plan.toml").write_text(PLAN)

    def stop(done: int, cell: Any, error: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark.run(benchmark.load(folder / "plan.toml"), folder, progress=stop)
    assert len(list(folder.glob("cells/**/*.json"))) == 2
    return folder, benchmark.run(benchmark.load(folder / "plan.toml"), folder)


def test_failures_are_recorded_and_the_others_go_on(finished: tuple[Path, pd.DataFrame]) -> None:
    folder, results = finished
    assert len(results) == 16
    failed = results[results["error"] != ""]
    # Two participants cannot be told apart by a median.
    assert set(zip(failed["setting"], failed["defense"], strict=True)) == {
        ("two clients", "bias-anomaly")
    }
    assert failed["error"].str.contains("at least 3 participants").all()
    assert results.loc[results["error"] == "", "accuracy"].between(0, 1).all()
    assert "at least 3 participants" in (folder / "results.md").read_text()


def test_a_row_is_what_the_run_by_itself_says(finished: tuple[Path, pd.DataFrame]) -> None:
    _, results = finished
    cell = next(c for c in benchmark.load(finished[0] / "plan.toml") if c.attack != "none")
    cell = next(
        c
        for c in benchmark.load(finished[0] / "plan.toml")
        if c.key == {**cell.key, "defense": "bias-anomaly"}
    )
    row = results[(results[list(cell.key)] == pd.Series(cell.key)).all(axis=1)].iloc[0]
    alone = simulation.simulate(cell.config)
    assert row["accuracy"] == alone.summary["accuracy"]
    assert row["attack_success"] == alone.summary["attack_success"]
    assert row["auc"] == alone.summary["mean_auc"]
    assert row["malicious"] == 1


def test_finished_runs_are_not_run_again_but_failed_and_changed_ones_are(
    finished: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = finished
    called = []

    def instead(config: Any, *_: Any, **__: Any) -> Any:
        called.append((config.federation.participants, config.training.batch_size))
        raise UsageError("not now")

    monkeypatch.setattr(simulation, "simulate", instead)
    again = benchmark.run(benchmark.load(folder / "plan.toml"), folder)
    assert set(called) == {(2, 64)} and len(called) == 4
    good = before["error"] == ""
    pd.testing.assert_frame_equal(again[good], before[good])

    called.clear()
    (folder / "changed.toml").write_text(PLAN + "[experiment.training]\nbatch_size = 32\n")
    benchmark.run(benchmark.load(folder / "changed.toml")[:1], folder / "copy")
    assert called == [(None, 32)]


def test_run_directories_go_unless_they_are_wanted(finished: tuple[Path, pd.DataFrame]) -> None:
    folder, _ = finished
    assert not list(folder.glob("runs/iid/**/rounds.csv"))
    cell = benchmark.load(folder / "plan.toml")[0]
    benchmark.run([cell], folder / "kept", keep_runs=True)
    assert (folder / "kept" / "runs" / cell.path / "rounds.csv").exists()
    stored = json.loads((folder / "kept" / "cells" / f"{cell.path}.json").read_text())
    assert stored["error"] == ""


def row(**values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(benchmark.COLUMNS), "setting": "", "seed": 0, "error": "", **values}


def test_tables_by_hand() -> None:
    rows = [
        row(attack="none", defense="none", accuracy=0.9),
        row(attack="none", defense="d", accuracy=0.8, fpr=0.25, defense_seconds=0.5),
        row(attack="a", defense="none", accuracy=0.2, attack_success=1.0),
        row(
            attack="a", defense="d", accuracy=0.7, attack_success=0.0, recall=1.0, fpr=0.0, auc=1.0
        ),
        row(attack="b", defense="none", accuracy=0.5),
        row(attack="b", defense="d", accuracy=0.6, recall=0.5, fpr=0.1, auc=0.75),
    ]
    lines = markdown(rows).splitlines()
    assert "| *no attack* | 90.0 | 80.0 |" in lines
    assert "| a | 20.0 | 70.0 |" in lines
    assert "| a | 100.0 | 0.0 |" in lines
    assert "| a | 100 / 0 |" in lines
    assert "| b | 50 / 10 |" in lines
    assert "| b | 0.75 · – · – |" in lines
    assert "| undefended | 90.0 | 20.0 (a) | – | – | – |" in lines
    assert "| d | 80.0 | 60.0 (b) | 75.0 | 25.0 | 0.500 |" in lines
    assert not any(line.startswith("| b | –") for line in lines)


def test_worst_is_over_attacks_not_seeds() -> None:
    rows = [
        row(attack="none", accuracy=0.0),
        row(attack="a", accuracy=0.1),
        row(attack="a", accuracy=0.9, seed=1),
        row(attack="b", accuracy=0.4),
        row(attack="b", accuracy=0.4, seed=1),
        row(attack="c", accuracy=None, error="out of memory"),
    ]
    assert worst(rows) == ("b", pytest.approx(0.4))
    assert worst(rows[:1]) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_interval_is_students(values: list[float]) -> None:
    center, half = interval(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, np.mean(values), stats.sem(values) or 1e-300
    )
    assert center == pytest.approx(np.mean(values))
    assert half == pytest.approx((high - low) / 2, abs=1e-9)
    assert math.isnan(interval(values[:1])[1])


def test_a_defense_is_summed_up_by_its_worst_attack() -> None:
    undefined = dict.fromkeys(("recall", "fpr", "defense_seconds"))
    rows = [
        {"setting": "iid", "attack": attack, "defense": "krum", "error": "", **undefined, **figures}
        for attack, figures in (
            ("none", {"accuracy": 0.9, "fpr": 0.25, "defense_seconds": 1.0}),
            ("lie", {"accuracy": 0.5, "recall": 1.0, "defense_seconds": 3.0}),
            ("ipm", {"accuracy": 0.7, "recall": 0.5}),
        )
    ]
    assert summaries(rows) == {
        "iid": [DefenseSummary("krum", 0.9, "lie", 0.5, recall=0.75, fpr=0.25, seconds=2.0)]
    }
    (lonely,) = summaries(rows[:1])["iid"]
    assert lonely.worst_attack is None and math.isnan(lonely.worst_accuracy) and not lonely.ruined
    (ruined,) = summaries([*rows, {**rows[2], "accuracy": None}])["iid"]
    assert ruined.ruined and ruined.worst_attack == "ipm"

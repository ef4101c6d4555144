"""A whole run: the same on any number of devices, after any interruption, and from any caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tffl
import tffl.config
from tffl.callbacks import Callback, Round
from tffl.config import Config, build
from tffl.core.errors import UsageError

SMALL: dict[str, Any] = {
    "seed": 4,
    "data": {"train_limit": 300, "test_limit": 100, "partition": "dirichlet", "beta": 1.0},
    "federation": {"clients": 6, "participants": 5, "malicious": 2, "rounds": 4},
    "model": {"name": "lenet5"},
    "training": {"batch_size": 16, "momentum": 0.9},
    "attack": {"name": "patch-backdoor", "scale": 2.0},
    "defense": {"name": "bias-anomaly", "window": 3, "votes": 2},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


SEEDS = (1, 2, 3)


def config(**changes: Any) -> Config:
    return build(tffl.config.override(SMALL, {k.replace("__", "."): v for k, v in changes.items()}))


def tables(path: Path) -> tuple[str, str]:
    """The two tables of a run directory as text, without the columns of seconds."""
    texts = []
    for name in ("rounds.csv", "clients.csv"):
        frame = pd.read_csv(path / name, dtype=str, keep_default_na=False)
        texts.append(frame.loc[:, ~frame.columns.str.endswith("_seconds")].to_csv())
    return texts[0], texts[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    tffl.simulate(config(), path)
    return path


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_devices_do_not_change_a_digit(whole: Path, tmp_path: Path, devices: int) -> None:
    tffl.simulate(config(runtime__devices=devices), tmp_path / "run")
    assert tables(tmp_path / "run") == tables(whole)


def test_another_seed_changes_the_numbers(whole: Path, tmp_path: Path) -> None:
    tffl.simulate(config(seed=5), tmp_path / "run")
    assert tables(tmp_path / "run")[0] != tables(whole)[0]


class Killer(Callback):
    """Stops a run right after a round, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.warnings: list[str] = []

    def round(self, round: Round) -> None:
        if round.number == self.after:
            raise KeyboardInterrupt

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Moves the process to another time zone when it is called."""

    def move() -> None:
        monkeypatch.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("after", [1, 3])
def test_resume_after_an_interruption_on_other_devices_in_another_time_zone(
    whole: Path, tmp_path: Path, after: int, elsewhere: Callable[[], None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tffl.simulate(config(), tmp_path / "run", callbacks=[Killer(after)])
    elsewhere()
    run = tffl.simulate(config(runtime__devices=1), tmp_path / "run", resume=True)
    assert len(run.rounds) == 4
    assert tables(tmp_path / "run") == tables(whole)
    assert (tmp_path / "run" / "summary.json").read_text() == (whole / "summary.json").read_text()


def test_a_damaged_checkpoint_costs_a_round_and_is_told(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tffl.simulate(config(), tmp_path / "run", callbacks=[Killer(3)])
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    content = bytearray(newest.read_bytes())
    content[-7] ^= 1
    newest.write_bytes(content)
    observer = Killer(after=99)
    tffl.simulate(config(), tmp_path / "run", resume=True, callbacks=[observer])
    assert len(observer.warnings) == 1 and newest.name in observer.warnings[0]
    assert tables(tmp_path / "run") == tables(whole)


def test_resume_of_a_finished_run_changes_nothing(whole: Path) -> None:
    before = tables(whole)
    run = tffl.simulate(config(), whole, resume=True)
    assert tables(whole) == before
    assert len(run.rounds) == 4


def test_another_experiment_is_refused(whole: Path) -> None:
    with pytest.raises(UsageError, match="another experiment"):
        tffl.simulate(config(federation__clients=9), whole, resume=True)
    with pytest.raises(UsageError, match="--resume"):
        tffl.simulate(config(), whole)


@pytest.mark.slow
def test_kill_9_at_random_moments(whole: Path, tmp_path: Path) -> None:
    """Kills until the run gets through; the tables are those of an undisturbed run."""
    program = (
        "import sys, tffl; from tffl.config import load; "
        "tffl.simulate(load(sys.argv[1]), sys.argv[2], resume=bool(int(sys.argv[3])))"
    )
    source, out = whole / "config.toml", tmp_path / "run"
    rng, kills = np.random.default_rng(0), 0
    for attempt in range(10):
        resume = str(int((out / "config.toml").exists()))
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(source), str(out), resume],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        first = out / "rounds.csv"
        deadline = time.monotonic() + 120
        while attempt < 2 and not first.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            # The first two are killed soon after their tables exist, the others may finish.
            process.wait(timeout=rng.uniform(0, 0.6) if attempt < 2 else 120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        if (out / "summary.json").exists() and process.returncode == 0:
            break
    assert kills >= 1
    assert tables(out) == tables(whole)


def test_in_memory_equals_on_disk(whole: Path) -> None:
    run = tffl.simulate(config())
    stored = pd.read_csv(whole / "clients.csv")
    assert run.directory is None
    pd.testing.assert_series_equal(run.clients["score"], stored["score"])
    assert run.clients.groupby("round").size().eq(5).all()


def test_ground_truth_and_verdicts_add_up(whole: Path) -> None:
    rounds = pd.read_csv(whole / "rounds.csv")
    clients = pd.read_csv(whole / "clients.csv")
    for _, row in rounds.iterrows():
        mine = clients[clients["round"] == row["round"]]
        rejected = mine["accepted"] == 0
        assert row["rejected"] == rejected.sum()
        assert row["true_positives"] == (rejected & (mine["malicious"] == 1)).sum()
        assert row["false_positives"] == (rejected & (mine["malicious"] == 0)).sum()
        assert mine["weight"].sum() == pytest.approx(1)
        assert (mine.loc[rejected, "weight"] == 0).all()
        assert (mine.loc[rejected, "reason"].fillna("") != "").all()


def test_nobody_is_malicious_without_an_attack() -> None:
    run = tffl.simulate(config(attack={"name": "none"}, federation__rounds=1))
    assert run.summary["malicious_clients"] == []
    assert run.clients["malicious"].eq(0).all()
    assert run.rounds["recall"].isna().all() and run.rounds["attack_success"].isna().all()


QUIET: dict[str, Any] = {"attack": {"name": "none"}, "defense": {"name": "none"}}
STEADY = {"optimizer": "adam", "learning_rate": 2e-3, "batch_size": 16}
"""Small steps: a training that is not chaotic ends alike whatever the processor's last bits."""


@pytest.mark.learning
@pytest.mark.parametrize("seed", SEEDS)
def test_learning_happens(seed: int) -> None:
    """Of twelve seeds, the least accuracy was .92."""
    run = tffl.simulate(config(**QUIET, data={}, training=STEADY, seed=seed))
    assert run.summary["accuracy"] > 0.7


@pytest.mark.learning
@pytest.mark.parametrize("seed", SEEDS)
def test_the_servers_own_training_comes_first(seed: int) -> None:
    """Of twelve seeds, its loss was at most .27 of the loss without it."""
    data = {"server_shard": True, "train_limit": 600}
    same: dict[str, Any] = {**QUIET, "data": data, "training": STEADY, "seed": seed}
    first, second = (
        tffl.simulate(config(**same, federation__rounds=1, federation__server_epochs=epochs))
        for epochs in (20, 0)
    )
    assert first.summary["loss"] < 0.6 * second.summary["loss"]


def test_the_servers_own_training_needs_its_own_data() -> None:
    with pytest.raises(UsageError, match=r"data\.server_shard"):
        tffl.simulate(config(federation__server_epochs=1))


def test_a_precision_that_the_processor_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tffl.simulation.shared_resources.supports_convolution", lambda dtype: False
    )
    with pytest.raises(UsageError, match=r"^training\.precision = mixed_bfloat16 .* take float32$"):
        tffl.simulate(config(training__precision="mixed_bfloat16"))


def test_learning_rate_schedule() -> None:
    training = config(training__schedule="exponential", training__decay=0.5).training
    assert [training.learning_rate_of(round, 3) for round in (1, 2, 3)] == [0.05, 0.025, 0.0125]
    cosine = config(training__schedule="cosine").training
    assert cosine.learning_rate_of(1, 4) == 0.05
    assert cosine.learning_rate_of(3, 4) == pytest.approx(0.025)


def test_server_learning_rate_scales_the_step() -> None:
    whole_step = tffl.simulate(config(federation__rounds=1)).model.get_weights()
    half = config(federation__rounds=1, federation__server_learning_rate=0.5)
    none = config(federation__rounds=1, federation__server_learning_rate=1e-30)
    start, middle = (tffl.simulate(c).model.get_weights() for c in (none, half))
    for a, b, c in zip(start, middle, whole_step, strict=True):
        np.testing.assert_allclose(b, (a + c) / 2, atol=1e-6)

"""FedRecover: exact on quadratics, counted trainings, runs that cannot be recovered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import tffl
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.studies.recover import Plan, abnormality_threshold, rebuild, recover
from tffl_cli.main import cli

SIZE, CLIENTS, ROUNDS = 6, 5, 12
LAYOUT = WeightLayout((Entry("dense/kernel", (SIZE,), True),))
PLAN = Plan(warm_up=3, correct_every=4, tuning=1, tolerance=0.0)
RNG = np.random.default_rng(3)
CURVATURES, TARGETS = RNG.uniform(0.05, 0.2, CLIENTS), RNG.normal(size=(CLIENTS, SIZE))


def trained(round: int, ids: np.ndarray, weights: np.ndarray) -> Updates:
    """A gradient step on c/2 ‖w − target‖² per client: L-BFGS knows its Hessian after one pair."""
    matrix = (CURVATURES[ids][:, None] * (TARGETS[ids] - weights)).astype(np.float32)
    return Updates(round, ids, np.full(len(ids), 10), weights.copy(), matrix, LAYOUT)


def poisoned_rounds() -> list[Updates]:
    """A run in which client 0 always sends 2."""
    weights, rounds = np.zeros(SIZE, np.float32), []
    for round in range(1, ROUNDS + 1):
        updates = trained(round, np.arange(CLIENTS), weights)
        updates.matrix[0] = 2
        rounds.append(updates)
        weights = weights + updates.matrix.mean(axis=0)
    return rounds


def remaining() -> Iterable[Updates]:
    return [updates.select(np.arange(1, CLIENTS)) for updates in poisoned_rounds()]


def test_a_quadratic_is_recovered_as_if_it_were_trained_again() -> None:
    asked: list[int] = []

    def train(round: int, ids: np.ndarray, weights: np.ndarray) -> Updates:
        asked.append(len(ids))
        return trained(round, ids, weights)

    found = rebuild(remaining, ROUNDS, train, PLAN)
    weights = np.zeros(SIZE, np.float32)
    for round in range(1, ROUNDS + 1):
        weights = weights + trained(round, np.arange(1, CLIENTS), weights).matrix.mean(axis=0)
    np.testing.assert_allclose(found.weights, weights, atol=1e-4)
    assert [row["exact"] for row in found.rows] == [4, 4, 4, 0, 0, 0, 4, 0, 0, 0, 4, 4]
    assert sum(asked) == 24 and found.saved == pytest.approx(0.5)
    poisoned = poisoned_rounds()[-1].start
    assert np.linalg.norm(poisoned - weights) > 1


def test_an_abnormal_estimate_is_computed_by_the_client_itself() -> None:
    tight = Plan(warm_up=3, correct_every=4, tuning=1, tolerance=1.0)
    found = rebuild(remaining, ROUNDS, trained, tight)
    assert [row["abnormal"] for row in found.rows][3:6] == [4, 4, 4]
    assert found.saved == 0


def test_the_threshold_is_exceeded_by_its_share_of_the_coordinates() -> None:
    rows = np.arange(-20, 0, dtype=np.float32).reshape(2, 10)
    updates = Updates.of_rows(rows)
    assert abnormality_threshold(lambda: [updates], 0.0) == 20
    assert abnormality_threshold(lambda: [updates], 0.1) == 18
    ruined = Updates.of_rows(np.vstack([rows, np.full((1, 10), np.nan)]))
    assert abnormality_threshold(lambda: [ruined], 0.0) == 20


def test_where_nobody_was_poisoned_the_stored_updates_are_exact() -> None:
    weights, rounds = np.zeros(SIZE, np.float32), []
    for round in range(1, ROUNDS + 1):
        rounds.append(trained(round, np.arange(CLIENTS), weights))
        shares = np.full(CLIENTS, 1 / CLIENTS)
        weights = weights + rounds[-1].mean(shares)
    found = rebuild(lambda: rounds, ROUNDS, trained, PLAN)
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    assert found.saved == pytest.approx(0.5)


def test_a_plan_that_estimates_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="leave none of the run's 8 rounds to estimate") as error:
        Plan().check(8)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recover") / "run"
    values = {
        "data": {"train_limit": 300, "test_limit": 100},
        "federation": {"clients": 6, "malicious": 1, "rounds": 4},
        "model": {"name": "lenet5"},
        "attack": {"name": "sign-flip"},
        "defense": {"name": "none"},
        "record": {"store_updates": "all", "export": False, "figures": False},
    }
    tffl.simulate(values, path)
    return path


def test_the_command_writes_a_model_and_says_what_it_is_worth(run: Path) -> None:
    malicious = json.loads((run / "summary.json").read_text())["malicious_clients"]
    sizes = ["--warm-up", "2", "--correct-every", "9", "--tuning", "1", "--retrain"]
    ids = ",".join(map(str, malicious))
    result = CliRunner().invoke(cli, ["recover", str(run), "--clients", ids, *sizes])
    assert result.exit_code == 0, result.output
    for word in ("poisoned", "recovered", "retrained", f"Without clients {ids.replace(',', ', ')}"):
        assert word in result.output
    found = json.loads((run / "recovered" / "recovery.json").read_text())
    assert found["missed"] == [] and 0 <= found["saved"] <= 0.25
    model = keras.models.load_model(run / "recovered" / "global.keras")
    assert all(np.isfinite(array).all() for array in model.get_weights())
    assert len((run / "recovered" / "rounds.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", "1,x"], "--clients 1,x is not allowed"),
        (["--clients", "6"], "client 6 does not exist: the run's clients are 0 … 5"),
        (["--clients", "0,1,2,3,4,5"], "no client would be left"),
        (["--clients", "1", "--warm-up", "20"], "of the run's 4 rounds to estimate"),
        ([], "--clients or --convicted"),
        (["--clients", "1", "--convicted"], "--clients or --convicted"),
    ],
)
def test_what_cannot_be_recovered_is_one_line(
    run: Path, arguments: list[str], message: str
) -> None:
    sizes = [] if "--warm-up" in arguments else ["--warm-up", "1", "--tuning", "1"]
    result = CliRunner().invoke(cli, ["recover", str(run), *arguments, *sizes])
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")


def test_a_run_without_all_updates_is_refused(run: Path) -> None:
    stored = run / "updates" / "round-000003.safetensors"
    stored.rename(run / "moved")
    try:
        with pytest.raises(UsageError, match=r"lacks the updates of round 3.*--store-updates all"):
            recover(run, [1], PLAN)
    finally:
        (run / "moved").rename(stored)


def test_rounds_that_were_skipped_need_no_updates(tmp_path: Path) -> None:
    values = {
        "seed": 3,
        "data": {"train_limit": 300, "test_limit": 100},
        "federation": {"clients": 6, "malicious": 1, "rounds": 6, "dropout": 0.8},
        "model": {"name": "lenet5"},
        "attack": {"name": "sign-flip"},
        "record": {"store_updates": "all", "export": False, "figures": False},
    }
    path = tmp_path / "run"
    skipped = tffl.simulate(values, path).rounds["skipped"].astype(bool)
    assert 0 < skipped.sum() < 5
    recover(path, [0], Plan(warm_up=1, tuning=1))
    table = (path / "recovered" / "rounds.csv").read_text().splitlines()
    assert len(table) == 1 + (~skipped).sum()


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_computed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tffl.studies.recover.rebuild", None)
    with pytest.raises(UsageError, match="file is no folder that you can write to"):
        recover(run, [1], Plan(warm_up=1, tuning=1), out=tmp_path / "file")

"""Trackers, against the real packages writing to a folder; skipped where these are missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import tffl
from tffl.callbacks import Callback, Round, Start
from tffl.config import override
from tffl.core.errors import TfflError, TfflWarning, UsageError
from tffl.integrations.trackers import MLflow, Tracker, WandB, base, named_trackers
from tffl.simulation.shared_resources import SharedResources
from tffl_cli.main import cli

SHARED = SharedResources()
SMALL: dict[str, Any] = {
    "seed": 3,
    "data": {"train_limit": 100, "test_limit": 50},
    "federation": {"clients": 4, "malicious": 1, "rounds": 3},
    "model": {"name": "logistic"},
    "attack": {"name": "sign-flip"},
    "defense": {"name": "multi-krum", "malicious": 1},
    "record": {"tensorboard": False, "export": False, "evaluate_every": 2},
}


def run(out: Path | None, *callbacks: Callback, resume: bool = False) -> tffl.Run:
    config = override(SMALL, {"federation.clients": 5})
    return tffl.simulate(config, out, resume=resume, callbacks=callbacks, shared=SHARED)


class Kill(Callback):
    def round(self, round: Round) -> None:
        if round.number == 2:
            raise KeyboardInterrupt


class Noted(Tracker):
    """A tracker that keeps a list, and may fail."""

    package = "json"

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails, self.said = fails, []  # type: ignore[var-annotated]

    def _note(self, what: str, *values: Any) -> None:
        if what == self.fails:
            raise ConnectionError("no such server\nat all")
        self.said.append((what, *values))

    def open(self, start: Start) -> bool:
        self._note("open", base.title_of(start))
        return False

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        self._note(f"log {round}", dict(numbers))

    def close(self, numbers: Mapping[str, float], directory: Path | None) -> None:
        self._note("close", dict(numbers), sorted(map(str, base.files(directory))))


def test_a_tracker_hears_of_every_round_and_of_the_tables(tmp_path: Path) -> None:
    heard = Noted()
    played = run(tmp_path / "runs" / "one", heard)
    assert [entry[0] for entry in heard.said] == ["open", "log 1", "log 2", "log 3", "close"]
    assert heard.said[0][1] == "runs/one"
    first, second = heard.said[1][1], heard.said[2][1]
    assert "accuracy" not in first and second["accuracy"] == played.rounds["accuracy"].iloc[1]
    assert first["recall"] == 1.0 and "round" not in first
    _, summary, files = heard.said[-1]
    assert summary["summary/accuracy"] == played.summary["accuracy"]
    assert {"rounds.csv", "clients.csv", "config.toml", "figures/rounds.png"} <= {*files}


def test_a_resumed_run_is_logged_from_its_first_round(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Kill())
    heard = Noted()
    run(tmp_path / "run", heard, resume=True)
    assert [entry[0] for entry in heard.said][:4] == ["open", "log 1", "log 2", "log 3"]


def test_one_that_fails_in_a_round_is_one_warning_and_the_run_goes_on(tmp_path: Path) -> None:
    broken = Noted("log 2")
    with pytest.warns(TfflWarning, match="no such server; the run goes on") as caught:
        played = run(tmp_path / "run", broken)
    assert len([each for each in caught if each.category is TfflWarning]) == 1
    assert len(played.rounds) == 3
    assert [entry[0] for entry in broken.said] == ["open", "log 1"]


def test_one_that_cannot_begin_ends_the_run_before_round_1(tmp_path: Path) -> None:
    with pytest.raises(TfflError, match=r"tracker json failed in start: ConnectionError: no such"):
        run(tmp_path / "run", Noted("open"))
    assert not (tmp_path / "run" / "rounds.csv").exists()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tffl\[mlflow\]'$"):
        MLflow()
    result = CliRunner().invoke(cli, ["simulate", "--track", "wandb"])
    assert result.exit_code == 2 and "pip install 'tffl[wandb]'" in result.output
    with pytest.raises(UsageError, match=r"unknown tracker 'mlfow'.*did you mean 'mlflow'"):
        named_trackers(["mlfow"])


def recorded(folder: Path) -> list[Any]:
    """Returns the runs that MLflow has in a folder."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    experiment = client.get_experiment_by_name("tffl")
    return [] if experiment is None else [*client.search_runs([experiment.experiment_id])]


@pytest.fixture(scope="module")
def mlruns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A run that was killed and resumed, and the folder that MLflow has of it."""
    if find_spec("mlflow") is None:
        pytest.skip("mlflow-skinny is not installed")
    path = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        killed = MLflow(uri=path / "mlruns")
        with pytest.raises(KeyboardInterrupt):
            run(path / "run", killed, Kill())
        killed.abandon()  # as at the end of the program
        assert [each.info.status for each in recorded(path / "mlruns")] == ["KILLED"]
        run(path / "run", MLflow(uri=path / "mlruns"), resume=True)
        yield path / "run", path / "mlruns"


def test_mlflow_has_parameters_rounds_and_tables(mlruns: tuple[Path, Path]) -> None:
    from mlflow.tracking import MlflowClient

    directory, folder = mlruns
    client = MlflowClient(tracking_uri=folder.as_uri())
    (found,) = recorded(folder)  # the resumed run is no other
    assert found.info.status == "FINISHED"
    assert found.data.params["defense.name"] == "multi-krum"
    assert found.data.params["federation.clients"] == "5"
    rounds = pd.read_csv(directory / "rounds.csv")
    history = client.get_metric_history(found.info.run_id, "recall")
    assert sorted({(point.step, point.value) for point in history}) == [
        (row["round"], row["recall"]) for _, row in rounds.iterrows()
    ]
    evaluated = client.get_metric_history(found.info.run_id, "accuracy")
    assert {point.step for point in evaluated} == {2, 3}
    assert found.data.metrics["summary/accuracy"] == pytest.approx(rounds["accuracy"].iloc[-1])
    kept = Path(found.info.artifact_uri.removeprefix("file://"))
    assert (kept / "rounds.csv").read_bytes() == (directory / "rounds.csv").read_bytes()
    assert (kept / "figures" / "rounds.png").exists()


def wandb_records(path: Path) -> Iterator[Any]:
    """Yields what a `.wandb` file holds: LevelDB's log of blocks, behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, kept = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        kept += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(kept)
            kept = b""


def test_wandb_writes_a_folder_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    played = run(tmp_path / "run", WandB(folder=tmp_path))
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    assert (offline / "files" / "rounds.csv").read_bytes() == (
        tmp_path / "run" / "rounds.csv"
    ).read_bytes()
    (log,) = offline.glob("run-*.wandb")
    rows, config = [], {}
    for record in wandb_records(log):
        if record.HasField("history"):
            rows.append({i.key or i.nested_key[0]: i.value_json for i in record.history.item})
        if record.HasField("run"):
            config = {item.key: item.value_json for item in record.run.config.update}
    assert json.loads(config["defense.name"]) == "multi-krum"
    logged = {int(row["_step"]): row.get("accuracy") for row in rows}
    assert logged[1] is None and set(logged) == {1, 2, 3}
    assert float(str(logged[3])) == pytest.approx(played.rounds["accuracy"].iloc[-1])

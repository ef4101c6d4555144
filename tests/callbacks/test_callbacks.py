"""What callbacks hear of a run, what they may change of it, and what becomes of their failures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tffl
from tffl.callbacks import Callback, EarlyStopping, Round, Start
from tffl.config import build
from tffl.core.errors import TfflError, UsageError
from tffl.record.run_directory import RunDirectory
from tffl.simulation.shared_resources import SharedResources

SHARED = SharedResources()
SMALL: dict[str, Any] = {
    "data": {"train_limit": 100, "test_limit": 50},
    "federation": {"clients": 4, "participants": 3, "malicious": 1, "rounds": 3},
    "model": {"name": "lenet5"},
    "attack": {"name": "sign-flip"},
    "defense": {"name": "median"},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


def run(out: Path | None = None, rounds: int = 3, **options: Any) -> tffl.Run:
    config = {**SMALL, "federation": {**SMALL["federation"], "rounds": rounds}}
    return tffl.simulate(config, out, shared=SHARED, **options)


def tables(path: Path) -> list[str]:
    frames = [pd.read_csv(path / f"{name}.csv", dtype=str) for name in ("rounds", "clients")]
    return [f.loc[:, ~f.columns.str.endswith("_seconds")].to_csv() for f in frames]


class Diary(Callback):
    """Notes what it hears, and adds columns."""

    def __init__(self, title: str, diary: list[str], stop_after: int = 99) -> None:
        self.title, self.diary, self.stop_after = title, diary, stop_after
        self.rounds: list[Round] = []

    def start(self, start: Start) -> None:
        self.diary.append(f"{self.title} starts at {start.first} of {len(start.rows)} rows")

    def round_columns(self, round: Round) -> dict[str, Any]:
        column = f"{self.title}_distance"
        assert column not in round.row
        return {column: float(np.abs(round.updates.deltas).max())}

    def client_columns(self, round: Round) -> dict[str, Any]:
        return {f"{self.title}_id": [row["client"] for row in round.client_rows]}

    def round(self, round: Round) -> str | None:
        self.diary.append(f"{self.title} {round.number}")
        self.rounds.append(round)
        return "enough" if round.number == self.stop_after else None

    def end(self, run: tffl.Run) -> None:
        self.diary.append(f"{self.title} ends with {len(run.rounds)}")


class Kill(Callback):
    def round(self, round: Round) -> None:
        if round.number == 2:
            raise KeyboardInterrupt


class Fail(Callback):
    def __init__(self, what: str, error: Exception | None = None, **columns: Any) -> None:
        self.what, self.error, self.columns = what, error or ValueError("no\nsuch thing"), columns

    def _at(self, what: str) -> None:
        if what == self.what:
            raise self.error

    def start(self, start: Start) -> None:
        self._at("start")

    def round_columns(self, round: Round) -> dict[str, Any]:
        self._at("columns")
        return self.columns if self.what == "rounds" and round.number == 2 else {}

    def client_columns(self, round: Round) -> dict[str, Any]:
        return self.columns if self.what == "clients" and round.number == 2 else {}

    def round(self, round: Round) -> Any:
        if round.number == 2:
            self._at("round")
        return self.columns.get("why")

    def end(self, run: tffl.Run) -> None:
        self._at("end")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[tffl.Run, Diary, Diary]:
    diary: list[str] = []
    first, second = Diary("one", diary), Diary("two", diary)
    path = tmp_path_factory.mktemp("watched") / "run"
    return run(path, callbacks=[first, second]), first, second


def test_several_hear_in_order_of_rounds_that_are_in_the_tables(
    watched: tuple[tffl.Run, Diary, Diary],
) -> None:
    played, first, _ = watched
    assert first.diary == [
        *(f"{title} starts at 1 of 0 rows" for title in ("one", "two")),
        *(f"{title} {round}" for round in (1, 2, 3) for title in ("one", "two")),
        *(f"{title} ends with 3" for title in ("one", "two")),
    ]
    heard = first.rounds[1]
    row = played.rounds.iloc[1]
    assert heard.row["accuracy"] == row["accuracy"]
    assert heard.row["two_distance"] == row["two_distance"]
    assert heard.updates.round == 2 and len(heard.verdict.accepted) == 3
    assert heard.weights.shape == (1, played.summary["parameters"])
    with pytest.raises(ValueError, match="read-only"):
        heard.weights[0, 0] = 1
    right = heard.logits.argmax(axis=1) == heard.labels
    assert right.mean() == pytest.approx(heard.row["accuracy"])
    flat = np.concatenate([value.ravel() for value in played.model.get_weights()])
    np.testing.assert_array_equal(first.rounds[-1].weights[0], flat)


def test_their_columns_come_behind_the_others(watched: tuple[tffl.Run, Diary, Diary]) -> None:
    played, *_ = watched
    assert played.directory is not None
    assert played.rounds.columns[-3:].tolist() == [
        "evaluate_seconds",
        "one_distance",
        "two_distance",
    ]
    assert played.clients.columns[-3:].tolist() == ["reason", "one_id", "two_id"]
    assert (played.clients["one_id"] == played.clients["client"]).all()
    read = RunDirectory.open(played.directory).frames()
    assert read[0].equals(played.rounds) and read[1].equals(played.clients)


def test_a_run_without_them_has_the_same_numbers(
    watched: tuple[tffl.Run, Diary, Diary],
) -> None:
    played, plain = watched[0], run()
    for with_columns, without in ((played.rounds, plain.rounds), (played.clients, plain.clients)):
        kept = [name for name in without.columns if not name.endswith("_seconds")]
        assert with_columns[kept].equals(without[kept])
        assert [*with_columns.columns[: len(without.columns)]] == [*without.columns]


def test_a_resumed_run_keeps_columns_and_hears_of_its_rows(
    watched: tuple[tffl.Run, Diary, Diary], tmp_path: Path
) -> None:
    whole = watched[0].directory
    assert whole is not None
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callbacks=[Diary("one", []), Diary("two", []), Kill()])
    diary: list[str] = []
    run(tmp_path / "run", resume=True, callbacks=[Diary("one", diary), Diary("two", diary)])
    assert diary[0] == "one starts at 2 of 1 rows"
    assert tables(tmp_path / "run") == tables(whole)
    # Without the second one its cells are empty, and a third one's are in the rounds before.
    later = run(tmp_path / "run", 4, resume=True, callbacks=[Diary("one", []), Diary("six", [])])
    assert later.rounds["two_distance"].isna().tolist() == [False] * 3 + [True]
    assert later.rounds["six_distance"].isna().tolist() == [True] * 3 + [False]
    assert later.clients["six_id"].notna().sum() == 3


def test_one_may_stop_a_run_which_is_complete_and_goes_on_if_resumed(tmp_path: Path) -> None:
    diary: list[str] = []
    stopped = run(tmp_path / "run", callbacks=[Diary("one", diary, 2), Diary("two", diary)])
    assert diary[-3:] == ["two 2", "one ends with 2", "two ends with 2"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["stopped_after"], summary["stopped_because"]) == (2, "enough")
    assert "2 rounds, stopped: enough, accuracy" in repr(stopped)
    assert summary["rounds"] == 2

    from tffl.report.sources import read_run

    assert read_run(tmp_path / "run", "run").finished
    again = run(tmp_path / "run", resume=True)
    assert len(again.rounds) == 3 and "stopped_after" not in again.summary


def test_early_stopping_ends_a_resumed_run_where_it_would_have_ended(tmp_path: Path) -> None:
    def stopping() -> EarlyStopping:
        return EarlyStopping("accuracy", patience=2, min_delta=1.0)

    assert run(tmp_path / "whole", 5, callbacks=[stopping()]).summary["stopped_after"] == 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 5, callbacks=[stopping(), Kill()])
    parts = run(tmp_path / "parts", 5, resume=True, callbacks=[stopping()])
    assert parts.summary["stopped_after"] == 3
    assert parts.summary["stopped_because"] == "accuracy has not improved for 2 rounds"
    assert tables(tmp_path / "parts") == tables(tmp_path / "whole")
    same = run(tmp_path / "parts", 5, resume=True, callbacks=[stopping()])
    assert len(same.rounds) == 3 and same.summary["stopped_after"] == 3


@pytest.mark.parametrize(
    ("mode", "values", "waited"),
    [
        ("max", [0.1, 0.2, 0.2], 1),
        ("max", [0.1, None, 0.05, math.nan], 3),
        ("min", [0.3, 0.2, 0.25], 1),
        ("min", [math.nan, 0.1], 0),
    ],
)
def test_early_stopping_counts(mode: Any, values: list[Any], waited: int) -> None:
    rows = [{"loss": value} for value in values]
    for patience in (1, 2, 3, 4):
        stopping = EarlyStopping("loss", patience=patience, mode=mode)
        reason = stopping.start(Start(tffl.Config(), len(rows) + 1, rows))
        assert (reason is not None) == (waited >= patience)


def test_early_stopping_counts_a_new_column_from_where_it_begins() -> None:
    stopping = EarlyStopping("mean_confidence", patience=1)
    played = [{"accuracy": 0.5}, {"accuracy": 0.7}]
    assert stopping.start(Start(build({}), first=3, rows=played)) is None
    later = [*played, {"mean_confidence": 0.5}, {"mean_confidence": 0.4}]
    assert "has not improved" in (stopping.start(Start(build({}), first=5, rows=later)) or "")


def test_early_stopping_checks_its_options() -> None:
    with pytest.raises(UsageError, match="patience = 0 is not allowed"):
        EarlyStopping(patience=0)
    with pytest.raises(UsageError, match="mode = 'best' is not allowed"):
        EarlyStopping(mode="best")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"unknown column of rounds.csv 'acuracy'.*'accuracy'"):
        run(rounds=1, callbacks=[EarlyStopping("acuracy")])


@pytest.mark.parametrize("what", ["columns", "round"])
def test_a_failure_names_the_callback_and_loses_nothing(what: str, tmp_path: Path) -> None:
    diary: list[str] = []
    callbacks = [Fail(what), Diary("one", diary)]
    failed = 1 if what == "columns" else 2
    line = f"^the callback Fail failed in round {failed}: ValueError: no$"
    with pytest.raises(TfflError, match=line) as error:
        run(tmp_path / "run", callbacks=callbacks)
    assert error.value.exit_code == 1
    assert diary[-1] == f"one {failed}"
    first, _ = RunDirectory.open(tmp_path / "run").frames()
    assert len(first) == failed
    again = run(tmp_path / "run", resume=True, callbacks=[Diary("one", diary)])
    assert diary[diary.index(f"one {failed}") + 1] == f"one starts at {failed + 1} of {failed} rows"
    assert len(again.rounds) == 3 and again.rounds["one_distance"].notna().all()


def test_failures_outside_of_rounds_name_the_callback(tmp_path: Path) -> None:
    with pytest.raises(TfflError, match=r"^the callback Fail failed in start: ValueError: no$"):
        run(callbacks=[Fail("start")])
    with pytest.raises(TfflError, match=r"^the callback Fail failed in end: ValueError: no$"):
        run(tmp_path / "run", rounds=1, callbacks=[Fail("end")])
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Fail("rounds", accuracy=1.0), "callback Fail: rounds.csv has a column accuracy already"),
        (Fail("rounds", mine="much"), "column mine of rounds.csv is 'much': give a number"),
        (Fail("rounds", mine=[1, 2]), r"column mine of rounds.csv has shape \(2,\): give a number"),
        (Fail("rounds", **{"a,b": 1}), "'a,b' is not allowed as a column of rounds.csv"),
        (Fail("clients", reason=[1] * 3), "clients.csv has a column reason already"),
        (Fail("clients", mine=[1, 2]), r"has shape \(2,\): give a number for each of 3 clients"),
        (Fail("clients", mine=["a"] * 3), "column mine of clients.csv is 'a': give a number"),
        (Fail("rounds", mine=[[1], [1, 2]]), r"mine of rounds.csv is \[\[1\], .*: give numbers"),
        (Fail("clients", mine=[[1], [1, 2], 3]), r"mine of clients.csv is .*: give numbers"),
        (Fail("why", why=True), "the callback Fail returned True: return None, or why"),
        (Fail("why", why=np.ones(2)), r"the callback Fail returned array\(.*: return None, or why"),
    ],
)
def test_what_is_no_column_is_one_line(callback: Fail, message: str) -> None:
    with pytest.raises(TfflError, match=message):
        run(rounds=2, callbacks=[callback])


def test_what_is_no_callback_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match=r"callbacks = \[… 3 …\] is not allowed"):
        run(callbacks=[3])
    with pytest.raises(UsageError, match=r"callbacks = EarlyStopping\(.* give a list"):
        run(callbacks=EarlyStopping())


def test_metrics_are_functions_or_names(tmp_path: Path) -> None:
    def mistakes(labels: np.ndarray, logits: np.ndarray) -> float:
        assert labels.dtype == np.int32 and logits.dtype == np.float32
        return float((logits.argmax(axis=1) != labels).mean())

    played = run(tmp_path / "run", rounds=1, metrics={"my-mistakes": mistakes})
    assert played.config.record.metrics == ("my-mistakes",)
    more = run(tmp_path / "run", 2, resume=True, metrics=["my-mistakes", "mean-confidence"])
    assert (more.rounds["my_mistakes"] + more.rounds["accuracy"]).tolist() == pytest.approx([1, 1])
    assert more.rounds["mean_confidence"].isna().tolist() == [True, False]
    assert 0.1 <= more.rounds["mean_confidence"][1] <= 1


def test_a_metric_that_fails_is_named_and_the_round_is_kept(tmp_path: Path) -> None:
    def broken(labels: np.ndarray, logits: np.ndarray) -> float:
        raise RuntimeError("no images")

    with pytest.raises(TfflError, match=r"^the metric broken failed in round 1: RuntimeError"):
        run(tmp_path / "run", metrics={"broken": broken})
    tffl.register("broken", lambda labels, logits: 0.5, kind="metric")
    again = run(tmp_path / "run", resume=True, metrics=["broken"])
    assert again.rounds["broken"].fillna(-1).tolist() == [-1, 0.5, 0.5]


def test_what_is_no_metric_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"metric x = 3 is not allowed: give a function"):
        run(metrics={"x": 3})
    with pytest.raises(UsageError, match="metrics = 'mean-confidence' is not allowed: give a list"):
        run(metrics="mean-confidence")
    with pytest.raises(UsageError, match="unknown metric 'mean-confidense'"):
        run(metrics=["mean-confidense"])
    with pytest.raises(UsageError, match="cannot be registered as kind = 'attack': it is a model"):
        tffl.register("x", lambda shape, classes: None, kind="attack")
    with pytest.raises(UsageError, match="names one more than once"):
        build({"record": {"metrics": ["mean-confidence", "mean-confidence"]}})

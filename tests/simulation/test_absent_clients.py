"""Clients that never answer or train less, and rounds in which too few are left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tffl
from tffl.callbacks import Callback, Round
from tffl.config import build, override
from tffl.core.errors import TfflError
from tffl.core.tensors import read_tensors
from tffl.data.federation import ClientData
from tffl.drawing.figures import scores
from tffl.engine.training import LocalTraining
from tffl.report.content import build_report
from tffl.report.document import Bars
from tffl.simulation.participants import draw_dropouts, draw_stragglers
from tffl.simulation.shared_resources import SharedResources

SHARED = SharedResources()
SMALL: dict[str, Any] = {
    "data": {"train_limit": 150, "test_limit": 50},
    "federation": {"clients": 6, "malicious": 1, "rounds": 5, "dropout": 0.25},
    "model": {"name": "logistic"},
    "attack": {"name": "sign-flip"},
    "defense": {"name": "multi-krum", "malicious": 1},
    "record": {"tensorboard": False, "export": False, "figures": False},
}


def run(out: Path | None = None, resume: bool = False, callbacks: Any = (), **keys: Any) -> Any:
    config = override(SMALL, {key.replace("__", "."): value for key, value in keys.items()})
    return tffl.simulate(config, out, resume=resume, callbacks=callbacks, shared=SHARED)


class Heard(Callback):
    def __init__(self, kill_after: int = 99) -> None:
        self.warnings: list[str] = []
        self.weights: list[np.ndarray] = []
        self.kill_after = kill_after

    def round(self, round: Round) -> None:
        self.weights.append(round.weights.copy())
        if round.number == self.kill_after:
            raise KeyboardInterrupt

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def tables(path: Path) -> list[str]:
    frames = [pd.read_csv(path / f"{name}.csv", dtype=str) for name in ("rounds", "clients")]
    return [f.loc[:, ~f.columns.str.endswith("_seconds")].to_csv() for f in frames]


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> tuple[tffl.Run, Heard]:
    heard = Heard()
    return run(tmp_path_factory.mktemp("dropout") / "run", callbacks=[heard]), heard


def test_who_drops_out_depends_on_seed_round_and_client_alone() -> None:
    config = build({"federation": {"clients": 1000, "dropout": 0.3, "stragglers": 0.3}})
    everyone, some = np.arange(1000), np.arange(1000)[::7]
    dropped = draw_dropouts(config, 3, everyone)
    assert 0.25 < dropped.mean() < 0.35
    np.testing.assert_array_equal(draw_dropouts(config, 3, some), dropped[some])
    assert (draw_dropouts(config, 4, everyone) != dropped).any()
    assert (draw_stragglers(config, 3, everyone) != dropped).any()


def test_tables_say_who_is_missing_and_which_rounds_are_skipped(
    dropping: tuple[tffl.Run, Heard],
) -> None:
    played, heard = dropping
    rounds, clients = played.rounds, played.clients
    skipped = rounds[rounds["skipped"] == 1]
    kept = rounds[rounds["skipped"] == 0]
    assert 0 < len(skipped) < len(rounds)
    assert (kept["participants"] + kept["dropped"] == 6).all() and (kept["dropped"] > 0).any()
    assert (skipped["participants"] == 0).all() and (skipped["dropped"] > 1).all()
    assert skipped[["recall", "fpr", "true_positives", "threshold"]].isna().all(axis=None)
    assert skipped["accuracy"].notna().all()
    counts = clients.groupby("round").size()
    assert counts.to_dict() == dict(zip(kept["round"], kept["participants"], strict=True))
    assert played.summary["skipped_rounds"] == len(skipped)
    assert played.summary["dropped"] == rounds["dropped"].sum()
    lines = [text for text in heard.warnings if "is skipped" in text]
    assert len(lines) == len(skipped)
    round, left = int(skipped["round"].iloc[0]), 6 - int(skipped["dropped"].iloc[0])
    assert lines[0].startswith(
        f"round {round} is skipped: {left} of 6 participants answered, and multi-krum needs"
    )


def test_a_skipped_round_leaves_the_model_as_it_is(dropping: tuple[tffl.Run, Heard]) -> None:
    played, heard = dropping
    for row in played.rounds.iloc[1:].itertuples():
        before, after = heard.weights[row.round - 2], heard.weights[row.round - 1]
        assert bool((before == after).all()) == bool(row.skipped)


def test_reports_cope_with_skipped_rounds(dropping: tuple[tffl.Run, Heard]) -> None:
    played = dropping[0]
    assert played.directory is not None
    report = build_report([played.directory])
    assert not report.warnings
    charts = [block.chart for section in report.sections for block in section.blocks]
    (time,) = [chart for chart in charts if isinstance(chart, Bars)]
    assert np.isfinite([*time.stacks.values()]).all()
    lines = scores(played.rounds, played.clients).axes[0].lines
    (threshold,) = [line for line in lines if line.get_label() == "threshold"]
    kept = played.rounds.query("skipped == 0")["round"]
    assert list(threshold.get_xdata()) == kept.tolist()


@pytest.mark.parametrize("devices", [1, 3])
def test_it_is_the_same_on_any_number_of_devices_and_after_an_interruption(
    dropping: tuple[tffl.Run, Heard], tmp_path: Path, devices: int
) -> None:
    assert dropping[0].directory is not None
    skipped = int(dropping[0].rounds.query("skipped == 1")["round"].iloc[0])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callbacks=[Heard(skipped)], runtime__devices=devices)
    run(tmp_path / "run", resume=True, runtime__devices=devices)
    assert tables(tmp_path / "run") == tables(dropping[0].directory)


def test_a_run_of_skipped_rounds_only_ends_and_is_reported(tmp_path: Path) -> None:
    played = run(
        tmp_path / "run", federation__dropout=0.99, record__figures=True, record__tensorboard=True
    )
    assert played.rounds["skipped"].all() and not len(played.clients)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["skipped_rounds"] == 5
    build_report([tmp_path / "run"])


def test_updates_of_a_skipped_round_are_refused_in_one_line() -> None:
    class Careless(Callback):
        def round(self, round: Round) -> None:
            round.updates.norms()

    with pytest.raises(TfflError, match=r"round \d is skipped and has no updates"):
        run(callbacks=[Careless()], federation__dropout=0.9)


def job(samples: int, epochs: int) -> LocalTraining:
    rows = np.arange(samples)
    data = ClientData(rows, np.zeros(samples, np.int32))
    return LocalTraining.draw(data, epochs, 0.1, seed=0, round=1, client=0)


@pytest.mark.parametrize(
    ("epochs", "share", "shape"),
    [(4, 0.5, (2, 10)), (3, 0.5, (1, 10)), (1, 0.5, (1, 5)), (2, 0.05, (1, 1)), (1, 1.0, (1, 10))],
)
def test_a_straggler_trains_whole_epochs_or_a_part_of_the_first(
    epochs: int, share: float, shape: tuple[int, int]
) -> None:
    full = job(10, epochs)
    short = full.shortened(share)
    assert short.order.shape == shape
    np.testing.assert_array_equal(short.order, full.order[: shape[0], : shape[1]])


def test_stragglers_send_other_updates_and_the_others_the_same(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "federation__dropout": 0,
        "federation__rounds": 1,
        "attack__name": "none",
    }
    keys["record__store_updates"] = "all"
    run(tmp_path / "all", **keys)
    traces = next(iter(SHARED._compiled.values())).trainer.traces
    late = run(tmp_path / "late", federation__stragglers=0.5, **keys)
    assert next(iter(SHARED._compiled.values())).trainer.traces == traces
    straggler = late.clients["straggler"].to_numpy(bool)
    assert 0 < straggler.sum() < 6
    stored = "updates/round-000001.safetensors"
    full, less = (read_tensors(tmp_path / name / stored)[0]["deltas"] for name in ("all", "late"))
    np.testing.assert_array_equal(full[~straggler], less[~straggler])
    assert (full[straggler] != less[straggler]).any(axis=1).all()
    assert "straggler" not in pd.read_csv(tmp_path / "all" / "clients.csv")
    assert "dropped" not in late.rounds

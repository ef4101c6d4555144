"""Rounds without evaluation: empty cells, and nothing else that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tffl
from tffl.callbacks import Callback, EarlyStopping, Round
from tffl.config import override
from tffl.core.tensors import read_tensors
from tffl.drawing.figures import curves
from tffl.report.content import build_report
from tffl.report.run_comparison import compare_runs
from tffl.simulation.shared_resources import SharedResources
from tffl.studies.comparison import Outcome, last_and_mean

SHARED = SharedResources()
SMALL: dict[str, Any] = {
    "data": {"train_limit": 100, "test_limit": 60},
    "federation": {"clients": 4, "participants": 3, "malicious": 1, "rounds": 5},
    "model": {"name": "lenet5"},
    "attack": {"name": "patch-backdoor"},
    "defense": {"name": "bias-anomaly", "window": 2, "votes": 1},
    "record": {"export": False, "metrics": ["mean-confidence"]},
}
MODEL = ["accuracy", "loss", "attack_success", "attack_loss", "mean_confidence"]


def run(out: Path | None = None, resume: bool = False, callbacks: Any = (), **record: Any) -> Any:
    changes = {f"record.{key}": value for key, value in record.items()}
    config = override(SMALL, changes)
    return tffl.simulate(config, out, resume=resume, callbacks=callbacks, shared=SHARED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation")
    run(path / "always")
    run(path / "rarely", evaluate_every=2)
    return path


def table(path: Path, name: str = "rounds") -> pd.DataFrame:
    frame = pd.read_csv(path / f"{name}.csv", dtype=str, keep_default_na=False)
    return frame.loc[:, ~frame.columns.str.endswith("_seconds")]


def test_cells_of_rounds_without_evaluation_are_empty_and_all_others_are_the_same(
    folder: Path,
) -> None:
    always, rarely = table(folder / "always"), table(folder / "rarely")
    expected = always.copy()
    expected.loc[[0, 2], MODEL] = ""
    assert (always[MODEL] != "").all(axis=None)
    pd.testing.assert_frame_equal(rarely, expected)
    clients = [table(folder / name, "clients") for name in ("always", "rarely")]
    pd.testing.assert_frame_equal(*clients)


def test_checkpoints_and_the_summary_are_the_same(folder: Path) -> None:
    name = "checkpoints/round-000005.safetensors"
    always, rarely = (read_tensors(folder / path / name)[0] for path in ("always", "rarely"))
    assert always.keys() == rarely.keys()
    for key, value in always.items():
        np.testing.assert_array_equal(value, rarely[key])
    texts = [(folder / path / "summary.json").read_text() for path in ("always", "rarely")]
    assert texts[0] == texts[1]


def test_what_reads_rounds_without_evaluation_copes(folder: Path) -> None:
    report = build_report([folder / "rarely"])
    assert not report.warnings  # an empty cell is no ruined model
    charts = {
        block.chart.title: block.chart
        for section in report.sections
        for block in section.blocks
        if block.chart is not None
    }
    assert charts["Accuracy by round"].series[0].x == [2, 4, 5]
    assert charts["Mean confidence by round"].series[0].x == [2, 4, 5]
    compared = compare_runs([folder / "always", folder / "rarely"])
    assert not compared.warnings
    always, rarely = compared.runs
    (line,) = [x for x in curves(rarely.rounds).axes[0].lines if x.get_label() == "accuracy"]
    assert list(line.get_xdata()) == [2, 4, 5]
    last, means = last_and_mean(rarely.rounds)
    assert means["accuracy"] == pytest.approx(rarely.rounds["accuracy"].mean())
    assert last["accuracy"] == always.rounds["accuracy"].iloc[-1]
    outcomes = [Outcome.of(one.rounds, one.summary) for one in (always, rarely)]
    assert outcomes[0] == outcomes[1]


def test_a_run_of_nothing_but_its_last_evaluation_is_drawn(tmp_path: Path) -> None:
    once = run(tmp_path / "run", evaluate_every=99)
    assert once.rounds["accuracy"].notna().tolist() == [False] * 4 + [True]
    assert "accuracy" in repr(once) and "–" in once._repr_html_()


def test_evaluation_on_a_part_ends_with_the_whole_test_set(folder: Path, tmp_path: Path) -> None:
    class Labels(Callback):
        def __init__(self) -> None:
            self.seen: list[np.ndarray] = []

        def round(self, round: Round) -> None:
            assert len(round.logits) == len(round.labels)
            self.seen.append(round.labels)

    heard = Labels()
    part = run(tmp_path / "run", callbacks=[heard], evaluate_samples=20)
    assert [len(labels) for labels in heard.seen] == [20, 20, 20, 20, 60]
    assert np.bincount(heard.seen[0]).tolist() == [2] * 10
    always, partly = table(folder / "always"), table(tmp_path / "run")
    assert partly.iloc[-1].tolist() == always.iloc[-1].tolist()
    assert (partly["loss"] != always["loss"]).tolist() == [True] * 4 + [False]
    others = [name for name in always if name not in MODEL]
    pd.testing.assert_frame_equal(partly[others], always[others])
    assert all(x * 20 == pytest.approx(round(x * 20)) for x in part.rounds["accuracy"][:4])


class Enough(Callback):
    def round(self, round: Round) -> str | None:
        return "enough" if round.number == 3 else None


@pytest.mark.parametrize("record", [{"evaluate_every": 2}, {"evaluate_samples": 20}])
def test_a_round_that_becomes_the_last_is_evaluated_whole(
    folder: Path, tmp_path: Path, record: dict[str, int]
) -> None:
    stopped = run(tmp_path / "run", callbacks=[Enough()], **record)
    assert table(tmp_path / "run").iloc[2].tolist() == table(folder / "always").iloc[2].tolist()
    assert stopped.summary["accuracy"] == stopped.rounds["accuracy"].iloc[2]


def test_a_resumed_run_evaluates_the_same_rounds(folder: Path, tmp_path: Path) -> None:
    class Kill(Callback):
        def round(self, round: Round) -> None:
            if round.number == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callbacks=[Kill()], evaluate_every=2)
    run(tmp_path / "run", resume=True, evaluate_every=2)
    pd.testing.assert_frame_equal(table(tmp_path / "run"), table(folder / "rarely"))


def test_early_stopping_waits_for_an_evaluation(tmp_path: Path) -> None:
    patient = EarlyStopping("mean_confidence", patience=1, mode="max", min_delta=9.0)
    stopped = run(tmp_path / "run", callbacks=[patient], evaluate_every=2)
    # Round 2 is the first with a value, round 4 the first without an improvement.
    assert len(stopped.rounds) == 4

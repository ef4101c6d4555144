import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from tffl.callbacks.base import Group, Round
from tffl.config import Config, RecordConfig
from tffl.core import deviations as module
from tffl.core.deviations import Deviations, deviations, of_updates
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses import FedAvg
from tffl.record.run_directory import RunDirectory
from tffl.record.writer import RunWriter
from tffl.studies.localize import localize, measure, rank
from tffl_cli.localize import localize as command
from tffl_cli.main import Invocation

LAYOUT = WeightLayout(
    (
        Entry("conv/kernel", (3, 3, 2), True),
        Entry("norm/moving_mean", (2,), False),
        Entry("logits/kernel", (4, 5), True),
        Entry("logits/bias", (5,), True),
    )
)
MALICIOUS = {0, 3}


def make(deltas: np.ndarray, round: int = 1) -> Updates:
    ids = np.arange(len(deltas))
    start = np.ones(LAYOUT.size, np.float32)
    return Updates(round, ids, np.full(len(ids), 9), start, deltas.astype(np.float32), LAYOUT)


def planted(round: int, strength: float = 8) -> Updates:
    deltas = np.random.default_rng(round).normal(size=(10, LAYOUT.size))
    deltas[np.ix_(sorted(MALICIOUS), range(LAYOUT.size - 5, LAYOUT.size))] *= strength
    return make(deltas, round)


def record(path: Path, malicious: set[int], config: Config | None = None) -> None:
    quiet = RecordConfig(tensorboard=False)
    run = RunWriter.create(path, config or Config(record=quiet), [], {})
    for round in range(1, 8):
        updates = planted(round)
        if config is None:
            run.store_deviations(played(updates))
        run.store_updates(updates)
        clients = [
            {"round": round, "client": c, "malicious": int(c in malicious)} for c in range(10)
        ]
        run.write_round({"round": round}, clients)


def played(updates: Updates) -> Round:
    verdict = FedAvg().judge_rows(updates.deltas)
    groups = [Group(0, updates, verdict, np.isin(updates.client_ids, sorted(MALICIOUS)))]
    weights, labels = np.zeros((1, LAYOUT.size), np.float32), np.zeros(1, np.int32)
    return Round(updates.round, groups, weights, {}, [], labels, lambda: np.zeros((1, 5)))


def naive(updates: Updates) -> np.ndarray:
    weights = updates.start.astype(np.float64) + updates.deltas.astype(np.float64)
    result = np.empty((len(updates), len(LAYOUT.entries), 2, 2))
    for v, columns in enumerate(LAYOUT.slices.values()):
        for r, reference in enumerate((weights.mean(axis=0), updates.start)):
            difference = (weights - reference)[:, columns]
            result[:, v, 0, r] = np.abs(difference).max(axis=1)
            result[:, v, 1, r] = np.sqrt((difference**2).mean(axis=1))
    return result


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.just(LAYOUT.size)),
        elements=st.floats(-100, 100, width=32),
    ),
    st.integers(1, 40),
)
def test_deviations_equal_the_definition_in_blocks_of_any_size(
    deltas: np.ndarray, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "VALUES_AT_ONCE", block)
        found = deviations(make(deltas))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive(make(deltas)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_client_that_is_not_finite_spoils_only_itself(bad: float) -> None:
    deltas = np.random.default_rng(0).normal(size=(4, LAYOUT.size))
    expected = deviations(make(deltas[1:]))
    deltas[0, -1] = bad
    found = deviations(make(deltas))
    np.testing.assert_array_equal(found[1:], expected)
    assert np.isinf(found[0, -1]).all() and np.isfinite(found[0, :-1]).all()


def test_measure_agrees_with_scikit_learn() -> None:
    values = np.random.default_rng(1).integers(0, 5, (10, 3, 2, 2)).astype(np.float32)
    measured = measure([Deviations(4, np.arange(10), ("a", "b", "c"), values)], MALICIOUS)
    assert len(measured) == 3 * 2 * 2
    guilty = np.isin(np.arange(10), list(MALICIOUS))
    for row in measured.to_dict("records"):
        v = "abc".index(row["variable"])
        s = ("max", "rms").index(row["statistic"])
        r = ("clients", "joint").index(row["reference"])
        column = values[:, v, s, r]
        assert row["auc"] == pytest.approx(roc_auc_score(guilty, column))
        assert row["malicious"] == np.median(column[guilty])
        assert row["benign"] == np.median(column[~guilty])
        assert row["round"] == 4


def test_rounds_that_lack_a_group_are_undefined_and_left_out() -> None:
    one, two = of_updates(planted(1)), of_updates(planted(2))
    benign = Deviations(2, np.arange(10, 20), two.names, two.values)
    alone = rank(measure([one], MALICIOUS))
    measured = measure([one, benign], MALICIOUS)
    assert measured.loc[measured["round"] == 2, "auc"].isna().all()
    pd.testing.assert_frame_equal(rank(measured), alone)
    with pytest.raises(UsageError, match="no round has both"):
        measure([benign], MALICIOUS)


def test_equal_areas_are_ordered_by_separation() -> None:
    values = np.ones((4, 2, 2, 2), np.float32)
    values[0, 0], values[0, 1] = 2, 3
    values[1, :] = 0.5
    ranking = rank(measure([Deviations(1, np.arange(4), ("weak", "strong"), values)], {0}))
    assert list(ranking["variable"]) == ["strong", "weak"]
    assert list(ranking["auc"]) == [1, 1] and list(ranking["separation"]) == [3, 2]


@pytest.mark.parametrize("reference", ["clients", "joint"])
@pytest.mark.parametrize("statistic", ["max", "rms"])
def test_a_planted_variable_is_first(tmp_path: Path, reference: str, statistic: str) -> None:
    record(tmp_path, MALICIOUS)
    ranking = localize(tmp_path, reference, statistic)
    assert list(ranking["rank"]) == [1, 2, 3, 4]
    first, second = ranking.iloc[0], ranking.iloc[1]
    assert first["variable"] == "logits/bias"
    assert first["auc"] > 0.95 > second["auc"]
    assert first["separation"] > 3 > second["separation"]
    written = pd.read_csv(tmp_path / "localize.csv")
    pd.testing.assert_frame_equal(written, ranking, rtol=1e-8, check_dtype=False)
    rounds = pd.read_csv(tmp_path / "localize_rounds.csv")
    assert len(rounds) == 7 * len(LAYOUT.entries) * 4
    same = rounds[(rounds["reference"] == reference) & (rounds["statistic"] == statistic)]
    bias = same[same["variable"] == "logits/bias"]
    assert bias["auc"].mean() == pytest.approx(first["auc"])
    assert bias[bias["round"] <= 5]["auc"].mean() == pytest.approx(first["auc_early"])
    assert (tmp_path / "figures" / "localize.png").read_bytes().startswith(b"\x89PNG")


def test_stored_updates_serve_where_deviations_lack(tmp_path: Path) -> None:
    record(tmp_path / "with", MALICIOUS)
    stored = Config(record=RecordConfig(store_updates="all", tensorboard=False))
    record(tmp_path / "without", MALICIOUS, stored)
    assert not (tmp_path / "without" / "deviations").exists()
    pd.testing.assert_frame_equal(localize(tmp_path / "with"), localize(tmp_path / "without"))


def test_a_run_without_malicious_clients_or_deviations_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "peace", set())
    with pytest.raises(UsageError, match="has no malicious clients"):
        localize(tmp_path / "peace")
    record(tmp_path / "bare", MALICIOUS, Config(record=RecordConfig(tensorboard=False)))
    with pytest.raises(UsageError, match="neither deviations nor client updates"):
        localize(tmp_path / "bare")
    record(tmp_path / "run", MALICIOUS)
    with pytest.raises(UsageError, match="reference is 'mean': choose one of clients, joint"):
        localize(RunDirectory.open(tmp_path / "run"), reference="mean")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], obj=Invocation())


def test_the_command_prints_a_table_and_the_picture(tmp_path: Path) -> None:
    record(tmp_path, MALICIOUS)
    result = call(tmp_path, "--top", 2)
    assert result.exit_code == 0, result.output
    assert result.output.index("logits/bias") < result.output.index(str(tmp_path / "localize.csv"))
    assert sum(entry.name in result.output for entry in LAYOUT.entries) == 2
    assert str(tmp_path / "figures" / "localize.png") in result.output


def test_the_command_prints_json(tmp_path: Path) -> None:
    record(tmp_path, MALICIOUS)
    result = call(tmp_path, "--json", "--statistic", "rms", "--reference", "joint")
    told = json.loads(result.stdout)
    assert (told["statistic"], told["reference"]) == ("rms", "joint")
    assert told["variables"][0]["variable"] == "logits/bias"
    assert len(told["variables"]) == len(LAYOUT.entries)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give RUN, or the options"),
        (["somewhere", "--seed", "1"], "not both"),
        (["--attack", "none"], "no attackers to localize"),
        (["--attack", "label-flip", "--malicious", "0"], "no attackers to localize"),
        (["nowhere"], "holds no run"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


@pytest.mark.slow
def test_in_one_go(tmp_path: Path) -> None:
    options = {"dataset": "digits", "train-limit": 300, "attack": "label-flip", "rounds": 2}
    flags = [text for key, value in options.items() for text in (f"--{key}", value)]
    result = call("--json", *flags, "--out", tmp_path / "run", "--set", "record.export=false")
    assert result.exit_code == 0, result.exception
    names = {row["variable"] for row in json.loads(result.stdout)["variables"]}
    assert {"logits/bias", "logits/kernel"} <= names
    assert (tmp_path / "run" / "localize.csv").exists()

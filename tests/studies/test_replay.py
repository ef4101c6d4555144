"""Replay: the same rows as a simulation gives, judged in the same way, without training again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tffl
import tffl.config
from tffl.attacks.semantic_backdoor import SemanticBackdoor
from tffl.config import ComponentConfig, build
from tffl.core.errors import UsageError
from tffl.defenses.median import Median
from tffl.record.run_directory import RunDirectory, load_updates
from tffl.studies.replay import METRICS, ReplayGrid, failures, replay, summarize
from tffl.studies.replay_grid import read_grid

HONEST: dict[str, Any] = {
    "seed": 2,
    "data": {"train_limit": 300, "test_limit": 100},
    "federation": {"clients": 6, "malicious": 2, "rounds": 3},
    "model": {"name": "lenet5"},
    "training": {"batch_size": 16, "learning_rate": 0.1},
    "record": {"tensorboard": False, "export": False, "figures": False, "store_updates": "1,3"},
}


def named(name: str, **options: Any) -> ComponentConfig:
    return ComponentConfig.model_validate({"name": name, **options})


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "honest"
    tffl.simulate(HONEST, path)
    return path


def test_the_first_round_is_that_of_a_simulation(honest: Path, tmp_path: Path) -> None:
    attack, defense = named("label-flip", scale=4.0), named("bias-anomaly", k=2.0)
    changes = {"attack": attack.model_dump(), "defense": defense.model_dump()}
    run = tffl.simulate(
        build(tffl.config.override(HONEST, {**changes, "federation.rounds": 1})), tmp_path / "run"
    )
    rows = replay(honest, ReplayGrid({"flip": attack}, {"bias": defense}, malicious=2))
    first, truth = rows[rows["round"] == 1].iloc[0], run.rounds.iloc[0]
    for column in ("accuracy", "attack_success", "recall", "fpr", "auc", "threshold", "malicious"):
        expected = truth[column] if column != "malicious" else 2
        assert first[column] == pytest.approx(expected, rel=1e-6), column


def test_honest_rows_stay_and_nothing_is_written_to_the_run(honest: Path) -> None:
    file = honest / "updates" / "round-000001.safetensors"
    before = load_updates(file)
    replay(honest, ReplayGrid({"a": named("patch-backdoor", scale=9.0)}, {"n": named("none")}))
    np.testing.assert_array_equal(load_updates(file).matrix, before.matrix)


def test_no_attack_and_no_defense_lose_nothing(honest: Path) -> None:
    rows = replay(honest, ReplayGrid({"none": ComponentConfig()}, {"none": ComponentConfig()}))
    assert rows["round"].tolist() == [1, 3]
    assert rows["lost"].eq(0).all() and rows["undefended_lost"].eq(0).all()
    assert rows["malicious"].eq(0).all() and rows["recall"].isna().all()
    recorded = RunDirectory.open(honest).frames()[0].set_index("round")["accuracy"]
    assert rows["honest_accuracy"].tolist() == recorded.loc[[1, 3]].tolist()


def test_draws_change_who_is_malicious_and_means_are_over_them(honest: Path) -> None:
    grid = ReplayGrid(
        {"f": named("patch-backdoor", scale=2.0)}, {"b": named("bias-anomaly")}, "33%", draws=3
    )
    rows = replay(honest, grid)
    assert len(rows) == 2 * 3 and rows["malicious"].eq(2).all()
    assert rows.groupby("draw")["undefended_success"].mean().nunique() > 1
    means = summarize(rows)
    assert means["lost"].tolist() == [pytest.approx(rows["lost"].mean())]


def test_an_inactive_attack_changes_nothing(honest: Path) -> None:
    late = named("label-flip", scale=9.0, from_round=2)
    rows = replay(honest, ReplayGrid({"late": late}, {"none": ComponentConfig()})).set_index(
        "round"
    )
    assert rows.loc[1, "lost"] == 0 and rows.loc[1, "malicious"] == 0
    assert rows.loc[3, "malicious"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record.store_updates": ""}, "stores no updates"),
        ({"attack.name": "label-flip"}, "has malicious clients"),
    ],
)
def test_runs_that_cannot_be_replayed(tmp_path: Path, changes: dict, message: str) -> None:
    tffl.simulate(
        build(tffl.config.override(HONEST, {**changes, "federation.rounds": 1})), tmp_path / "run"
    )
    with pytest.raises(UsageError, match=message):
        replay(
            tmp_path / "run", ReplayGrid({"none": ComponentConfig()}, {"none": ComponentConfig()})
        )


def test_an_attack_whose_images_honest_clients_hold_is_refused(
    honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SemanticBackdoor, "check", lambda self, dataset: None)
    attack = named("semantic-backdoor", indices=[3, 4], target=1)
    with pytest.raises(UsageError, match="keeps 2 images from honest clients"):
        replay(honest, ReplayGrid({"s": attack}, {"none": ComponentConfig()}))


def test_an_infeasible_defense_is_refused(honest: Path) -> None:
    impossible = named("bias-anomaly", rule="mean-std", alpha=3.0)
    with pytest.raises(UsageError, match="alpha"):
        replay(honest, ReplayGrid({"none": ComponentConfig()}, {"b": impossible}))


def test_a_grid_may_ask_for_no_attack(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('attacks = ["none", "sign-flip"]\ndefenses = ["median"]\n')
    found = read_grid(file=grid)
    assert list(found.attacks) == ["none", "sign-flip"]
    assert list(found.defenses) == ["median"]
    assert list(read_grid(["none"], ["median"]).attacks) == ["none"]
    grid.write_text("attacks = [3]\n")
    with pytest.raises(UsageError, match="attacks"):
        read_grid(file=grid)


def test_an_option_goes_to_every_named_entry_that_has_it() -> None:
    grid = read_grid(
        ["sign-flip", "lie"], ["median", "krum"], settings=["attack.z=1", "defense.malicious=2"]
    )
    assert grid.attacks["lie"].options == {"z": 1}
    assert grid.attacks["sign-flip"].options == {}
    assert grid.defenses["krum"].options == {"malicious": 2}
    for setting, message in {
        "attack.zz=1": "unknown option of attack lie 'zz': did you mean 'z'?",
        "seed=1": "--set seed is not allowed: set attack.KEY or defense.KEY",
    }.items():
        with pytest.raises(UsageError, match=re.escape(message)):
            read_grid(["lie"], ["median"], settings=[setting])


def test_what_cannot_be_is_a_row_and_the_others_go_on(honest: Path) -> None:
    attacks = {"lie": named("lie"), "flip": named("sign-flip")}
    defenses = {
        "many": named("krum", malicious=9),
        "median": named("median"),
        "none": ComponentConfig(),
    }
    rows = replay(honest, ReplayGrid(attacks, defenses, malicious=1))
    good = rows[rows["error"] == ""]
    assert set(zip(good["attack"], good["defense"], strict=True)) == {
        ("flip", "median"),
        ("flip", "none"),
    }
    assert good["round"].tolist() == [1, 1, 3, 3]
    bad = rows[rows["error"] != ""].set_index(["attack", "defense"])["error"]
    assert len(bad) == 4 and bad["lie"].str.contains("gives z = 0 for 1 malicious of 6").all()
    assert "n > 2f + 2" in bad["flip", "many"]
    means = summarize(rows).set_index(["attack", "defense"])
    assert len(means) == 6 and means["error"].ne("").sum() == 4
    assert means.loc[means["error"] != "", "lost"].isna().all()
    assert means.loc["flip"].loc[["median", "none"], "lost"].notna().all()


def test_a_defense_that_fails_in_a_round_has_no_half_of_rows(
    honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Median.judge

    def fails(self: Median, updates: Any, server: Any, state: Any) -> Any:
        if updates.round == 3:
            raise ValueError("no such\nround")
        return judge(self, updates, server, state)

    monkeypatch.setattr(Median, "judge", fails)
    rows = replay(
        honest,
        ReplayGrid({"none": ComponentConfig()}, {"m": named("median"), "none": ComponentConfig()}),
    )
    assert rows.set_index("defense").loc["m", "error"] == "ValueError: no such"
    assert rows["defense"].tolist() == ["none", "none", "m"]


def test_a_ruined_model_has_no_mean(honest: Path) -> None:
    nan = named("non-finite", from_round=2)
    rows = replay(
        honest, ReplayGrid({"nan": nan}, {"none": ComponentConfig(), "median": named("median")}, 2)
    )
    assert rows.groupby("defense")["accuracy"].count().to_dict() == {"median": 2, "none": 1}
    means = summarize(rows).set_index("defense")
    assert np.isnan(means.loc["none", "lost"]) and means.loc["none", "error"] == ""
    assert np.isfinite(means.loc["median", "lost"])


def test_the_table_says_what_was_not_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    from tffl_cli.console import print_replay

    line = {key: float("nan") for key in ("lost", "undefended_lost", *METRICS)}
    names = {"attack": "lie", "defense": "krum"}
    other = {"attack": "lie", "defense": "median"}
    told = [(names, "too few"), (other, "too few"), (names, "")]
    print_replay([{**line, **who, "error": error} for who, error in told], 2)
    shown = capsys.readouterr().out
    assert "Not replayed: lie against krum, median: too few" in shown and "ruined" in shown


def test_failures_are_grouped_by_their_reason() -> None:
    rows = [
        {"attack": "lie", "defense": "krum", "error": "too few"},
        {"attack": "lie", "defense": "median", "error": ""},
        {"attack": "lie", "defense": "dnc", "error": "too few"},
        {"attack": "ipm", "defense": "dnc", "error": "too few"},
    ]
    assert failures(rows) == {("lie", "too few"): ["krum", "dnc"], ("ipm", "too few"): ["dnc"]}

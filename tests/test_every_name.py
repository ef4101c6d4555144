"""Every attack and every defense that can be named: it runs, it resumes, it keeps its promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tffl.attacks import attacks, create_attack
from tffl.callbacks import Callback, Round
from tffl.config import build, load, override
from tffl.core.errors import UsageError
from tffl.core.updates import Updates
from tffl.defenses import create_defense, defenses
from tffl.engine.observer import Observer
from tffl.record.identity import resolved
from tffl.simulation.experiment import Experiment
from tffl.simulation.run import Run
from tffl.simulation.shared_resources import SharedResources
from tffl.simulation.simulation import simulate

BASE: dict[str, Any] = {
    "seed": 3,
    "data": {"train_limit": 400, "test_limit": 100, "server_samples": 50},
    "federation": {"clients": 10, "participants": 9, "malicious": 2, "rounds": 3},
    "model": {"name": "lenet5"},
    "training": {"batch_size": 16},
    "record": {"tensorboard": False, "export": False, "figures": False},
}
NEEDED: dict[str, dict[str, Any]] = {
    "a3fl": {"attack.search_epochs": 2},
    "adaptive-coalition": {"attack.steps": 2, "attack.halvings": 1},
    "iba": {"attack.search_epochs": 2},
    "semantic-backdoor": {"attack.indices": [5, 17, 99], "attack.target": 3},
}
"""Options without which an attack makes no sense on digits, or takes long."""

PARTS: dict[str, dict[str, Any]] = {
    "any-of": {"of": "multi-krum,update-consensus", "multi-krum": {"malicious": 2}},
    "all-of": {"of": ["bias-anomaly", "median"], "bias-anomaly": {"window": 3, "votes": 2}},
    "cam-consensus": {"probes": 20, "group": 10},  # fewer than the server's images
    "deepsight": {"noise_images": 20},
    "gan-audit": {"images": 20, "inversion_steps": 5},
    "probe-loss": {"probes": 40},
    "shield": {"cam-consensus": {"probes": 20, "group": 10}, "probe-loss": {"probes": 40}},
}
"""What defenses that ask others are made of, what they need here, or makes them quick."""

WRAPPED = ("nnm+krum", "nnm+trimmed-mean", "bucketing+median", "bucketing+multi-krum")
JOINED = ("label-flip+scaling", "patch-backdoor+lie", "label-flip+sign-flip")

SHARED = SharedResources()


def run(changes: dict[str, Any], out: Path | None = None, **options: Any) -> Run:
    return simulate(build(override(BASE, changes)), out, shared=SHARED, **options)


def defended_by(name: str) -> dict[str, Any]:
    options = PARTS.get(name, {})
    return {"defense.name": name, **{f"defense.{key}": value for key, value in options.items()}}


def tables(path: Path) -> list[str]:
    frames = [
        pd.read_csv(path / name, dtype=str, keep_default_na=False)
        for name in ("rounds.csv", "clients.csv")
    ]
    return [f.loc[:, ~f.columns.str.endswith("_seconds")].to_csv() for f in frames]


class Stop(Callback):
    """Interrupts after a round."""

    def __init__(self, after: int) -> None:
        self.after = after

    def round(self, round: Round) -> None:
        if round.number == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", [*attacks, *JOINED])
def test_every_attack_runs_repeats_and_resumes(name: str, tmp_path: Path) -> None:
    changes = {"attack.name": name, "defense.name": "none", **NEEDED.get(name, {})}
    whole = run(changes, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(changes, tmp_path / "parts", callbacks=[Stop(after=2)])
    run(load(tmp_path / "parts" / "config.toml").model_dump(), tmp_path / "parts", resume=True)
    assert tables(tmp_path / "parts") == tables(tmp_path / "whole")
    malicious = whole.clients.groupby("client")["malicious"].max().sum()
    assert malicious == (0 if name == "none" else 2)


@pytest.mark.parametrize("name", [*defenses, *WRAPPED])
def test_every_defense_runs_repeats_and_resumes(name: str, tmp_path: Path) -> None:
    changes = {"attack.name": "patch-backdoor", "attack.scale": 5.0, **defended_by(name)}
    whole = run(changes, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(changes, tmp_path / "parts", callbacks=[Stop(after=2)])
    run(load(tmp_path / "parts" / "config.toml").model_dump(), tmp_path / "parts", resume=True)
    assert tables(tmp_path / "parts") == tables(tmp_path / "whole")
    shares = whole.clients.groupby("round")["weight"].sum()
    assert (np.isclose(shares, 1) | np.isclose(shares, 0)).all()
    assert np.isfinite(whole.rounds["loss"]).all()


@pytest.mark.parametrize("name", [*defenses, *WRAPPED])
def test_no_defense_lets_nan_into_the_model(name: str) -> None:
    if name == "none":
        pytest.skip("FedAvg judges nobody, and says so")
    result = run({"attack.name": "non-finite", **defended_by(name), "federation.rounds": 2})
    assert np.isfinite(result.rounds["loss"]).all()
    assert all(np.isfinite(w).all() for w in result.model.get_weights())
    attackers = result.clients["malicious"] == 1
    assert result.clients.loc[attackers, "flagged"].eq(1).all()
    assert result.clients.loc[attackers, "accepted"].eq(0).all()


WORDS = {
    *("own data", "colluders' updates", "overheard updates", "all benign updates"),
    *("number of participants", "claimed sample counts", "aggregation rule", "defense"),
    "probe images",
}
"""What an attack may know beyond the global model."""


@pytest.mark.parametrize("name", [*attacks, *JOINED])
def test_every_attack_says_what_it_knows(name: str) -> None:
    for part in name.split("+"):
        entry = attacks.describe(part)
        assert set(entry["needs"]) <= WORDS and "own data" in entry["needs"]
    declared = create_attack(name, {}).declared_knowledge()
    assert declared[0] == "own data"
    assert len({"colluders' updates", "all benign updates"} & set(declared)) < 2


@pytest.mark.parametrize("name", [*defenses, *WRAPPED])
def test_resolved_options_build_the_same_defense(name: str) -> None:
    defense = create_defense(name, PARTS.get(name, {}))
    assert create_defense(name, defense.options()) == defense


@pytest.mark.parametrize("name", [*attacks, *JOINED])
def test_resolved_options_build_the_same_attack(name: str) -> None:
    attack = create_attack(name, {})
    assert create_attack(name, attack.options()) == attack


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defense.name": "krum+nnm"}, "krum cannot stand before another defense"),
        ({"defense.name": "nnm+nnm"}, "more than once"),
        ({"defense.name": "nnm+krumm"}, "unknown defense 'krumm'"),
        ({"attack.name": "lie+label-flip"}, "join one attack on data with one on updates"),
        ({"attack.name": "label-flip+patch-backdoor"}, "join one attack on data"),
        ({"attack.name": "none+scaling"}, "leave it out"),
        ({"attack.name": "label-flip", "attack.from_round": 4, "attack.until_round": 2}, "before"),
        ({"defense.name": "krum", "defense.malicious": 4}, "n > 2f \\+ 2"),
        ({"defense.name": "bulyan", "defense.malicious": 2}, "n >= 4f \\+ 3|n ≥ 4f \\+ 3"),
        ({"defense.name": "trimmed-mean", "defense.malicious": 5}, "2f|2b"),
        ({"defense.name": "fltrust", "data.server_samples": 0}, "data.server_samples"),
        ({"defense.name": "flcert", "defense.groups": 11}, "groups"),
        ({"defense.name": "bucketing+foolsgold"}, "bucketing"),
        ({"defense.name": "flcert", "record.store_updates": "1"}, "cannot be stored"),
    ],
)
def test_impossible_combinations_are_refused_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        run(changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("before", ["nnm", "bucketing", "flcert"])
def test_what_the_server_lacks_is_refused_behind_other_defenses_too(before: str) -> None:
    changes = {"defense.name": f"{before}+probe-loss", "defense.probes": 51}
    with pytest.raises(UsageError, match="probes = 51 is not allowed: the server has 50 images"):
        run(changes)


def test_pictures_of_mixed_updates_are_not_shown_as_clients(tmp_path: Path) -> None:
    changes = {"defense.name": "bucketing+gradcam-krum", "record.figures": True}
    run({**changes, "federation.rounds": 1}, tmp_path / "run")
    assert not (tmp_path / "run" / "heat_maps").exists()


def small(clients: int, malicious: int, **changes: Any) -> Experiment:
    """Prepares an experiment of one to three clients, without training them."""
    values = {
        "federation": {"clients": clients, "malicious": malicious, "rounds": 1},
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return Experiment(resolved(build(override(BASE, values))), Observer(), SHARED)


def sent(stage: Experiment) -> Updates:
    """Makes updates as if a stage's clients had trained."""
    clients = stage.config.federation.clients
    rows = np.random.default_rng(clients).normal(size=(clients, stage.layout.size))
    matrix = 0.01 * rows.astype(np.float32)
    start, counts = stage.first_weights.copy(), np.full(clients, 40)
    return Updates(1, np.arange(clients), counts, start, matrix, stage.layout)


@pytest.mark.parametrize("clients", [1, 2, 3])
@pytest.mark.parametrize("name", [*attacks, *JOINED])
def test_every_attack_with_very_few_clients(name: str, clients: int) -> None:
    options = {key.replace(".", "__"): value for key, value in NEEDED.get(name, {}).items()}
    for malicious in {0, 1, clients}:
        try:
            stage = small(clients, malicious, attack__name=name, **options)
            updates, state = sent(stage), stage.attack.init(stage.attackers.adversary)
            honest = updates.matrix.copy()
            updates, attackers, _ = stage.attackers.send(updates, state)
        except UsageError as error:
            assert "\n" not in str(error)
            continue
        assert attackers.sum() == (0 if name == "none" else malicious)
        np.testing.assert_array_equal(updates.matrix[~attackers], honest[~attackers])
        assert np.isfinite(updates.matrix).all() or "non-finite" in name


@pytest.fixture(scope="module")
def stages() -> dict[int, Experiment]:
    return {clients: small(clients, 0) for clients in (1, 2, 3)}


@pytest.mark.parametrize("clients", [1, 2, 3])
@pytest.mark.parametrize("name", [*defenses, *WRAPPED])
def test_every_defense_with_very_few_clients(
    name: str, clients: int, stages: dict[int, Experiment]
) -> None:
    stage = stages[clients]
    honest = sent(stage)
    copies, ruined = sent(stage), sent(stage)
    copies.matrix[:] = copies.matrix[0]
    ruined.matrix[:] = np.nan
    try:
        defense = create_defense(name, PARTS.get(name, {}))
        stage.check_defense(defense, name)
        state = defense.init(stage.server)
        for updates in (honest, copies, ruined):
            verdict, state = stage.judge(updates, state, defense)
            assert len(verdict.accepted) == len(verdict.weights) == clients
            share = float(verdict.weights.sum())
            assert np.isclose(share, 1) or np.isclose(share, 0)
            if updates is not ruined or name != "none":
                assert np.isfinite(verdict.aggregate).all()
        assert name == "none" or not verdict.accepted.any()
    except UsageError as error:
        assert "\n" not in str(error)

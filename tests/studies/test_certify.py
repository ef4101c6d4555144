"""Certificates of runs: which assumptions fail, what is then withheld, and the numbers of a run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tffl
from tffl.config import Config, build, override
from tffl.core.errors import UsageError
from tffl.core.tensors import read_tensors
from tffl.engine.smoothing import certified_radii, logistic_lipschitz, vote_bounds
from tffl.studies.certificate import Question, unmet
from tffl.studies.certify import certify
from tffl_cli.main import cli

VALUES: dict[str, Any] = {
    "seed": 1,
    "data": {"train_limit": 600, "test_limit": 100},
    "federation": {"clients": 6, "rounds": 3},
    "model": {"name": "logistic"},
    "training": {"learning_rate": 0.005, "local_epochs": 5, "batch_size": 16},
    "attack": {"name": "none"},
    "defense": {"name": "crfl"},
    "record": {"export": False, "figures": False},
}


def config(**changes: Any) -> Config:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return build(override(VALUES, named))


def failing(question: Question | None = None, lipschitz: float | None = 9.0, **changes: Any) -> str:
    chosen = config(**changes)
    asked = (question or Question()).resolved(chosen)
    return " ".join(unmet(chosen, asked, smoothness=32.5, lipschitz=lipschitz))


def test_a_plain_logistic_regression_keeps_every_assumption() -> None:
    assert failing() == ""
    assert failing(attack__name="label-flip") == ""  # data alone, in rounds that are the same
    asked = Question(scale=5)
    assert failing(asked, attack__name="patch-backdoor", attack__scale=5) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__name": "lenet5"}, "loss of lenet5 is not known to be convex"),
        ({"training__optimizer": "adam"}, "train with adam"),
        ({"training__momentum": 0.9}, "momentum 0.9"),
        ({"training__weight_decay": 0.01}, "decay by 0.01"),
        ({"training__precision": "mixed_bfloat16"}, "rounded to mixed_bfloat16"),
        ({"training__learning_rate": 0.07}, "0.07 is above 2 / β = 0.06154"),
        ({"attack__name": "sign-flip"}, "attackers (sign-flip) do not train"),
        ({"attack__name": "a3fl"}, "attackers (a3fl) do not train"),
        ({"attack__name": "none", "lipschitz": None}, "No Lipschitz constant"),
        ({"question": Question(scale=2)}, "γ is 2, but clients of the run multiply"),
        ({"question": Question(round=2)}, "has drawn its noise of rounds 2 to 2"),
    ],
)
def test_what_breaks_an_assumption_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in failing(**changes)


@pytest.mark.parametrize(
    ("changes", "question", "message"),
    [
        ({"defense.name": "median"}, Question(), "the run's defense is median"),
        ({"defense.name": "flcert"}, Question(), "own certificates are in certificates.csv"),
        ({"defense.noise": 0}, Question(), "give --noise"),
        ({"defense.noise": 0}, Question(noise=0.1, round=2), "last round, 3, can be certified"),
        ({}, Question(round=4), "--round 4 is not allowed: the run has 3 rounds"),
        ({}, Question(attackers=7), "--attackers 7 is not allowed: 6 clients"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    changes: dict[str, Any], question: Question, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        question.resolved(build(override(VALUES, changes)))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certify") / "run"
    tffl.simulate(VALUES, path)
    return path


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["certify", *arguments])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_command_certifies_as_the_theorem_says(run: Path) -> None:
    text = invoke(str(run), "--copies", "60", "--share", "0.05", "--radius", "0", "--radius", "9")
    assert "certified accuracy" in text and "no certificate" not in text
    assert "Certified against one client that trains as told" in text
    found = json.loads((run / "certified" / "certificate.json").read_text())
    facts, poisoning = found["facts"], found["facts"]["poisoning"]
    assert facts["input_norm"] == pytest.approx(28.0) and facts["factor"] == 1.0  # 28 × 28 pixels
    assert facts["smoothness"] == pytest.approx(392.5)
    assert poisoning["steps"] == 5 * math.ceil(100 / 16) and poisoning["weight"] == 1 / 6
    weights = read_tensors(run / "checkpoints" / "round-000003.safetensors")[0]["weights"]
    assert facts["lipschitz"] > logistic_lipschitz(float(np.linalg.norm(weights)), 28.0)
    table = pd.read_csv(run / "certified" / "certificates.csv")
    votes = table[["votes", "runner_up"]].to_numpy()
    drift = facts["lipschitz"] * (1 / 6) * 35 * 0.005 * 0.05
    radii = certified_radii(*vote_bounds(votes, 60, 0.001), 0.01, drift)
    np.testing.assert_allclose(table["radius"], radii, rtol=1e-6)
    assert 0 < (table["radius"] > 0).mean() <= 1
    right = (table["predicted"] == table["label"]) & (table["radius"] >= 0)
    assert found["certified"][0]["accuracy"] == pytest.approx(right.mean())
    assert found["certified"][1] == {"radius": 9.0, "accuracy": 0.0, "rate": 0.0}
    assert found["smoothed_accuracy"] > 0.2 and (votes.sum(axis=1) <= 60).all()


def test_votes_are_the_same_every_time_and_noise_decides_them(run: Path, tmp_path: Path) -> None:
    def table(folder: str, **options: Any) -> str:
        certify(run, Question(copies=20, **options), out=tmp_path / folder)
        return (tmp_path / folder / "certificates.csv").read_text()

    assert table("one") == table("two")
    assert table("one") != table("three", noise=0.5)


def test_without_its_assumptions_nothing_is_certified(run: Path, tmp_path: Path) -> None:
    arguments = [str(run), "--copies", "20", "--round", "2", "--out", str(tmp_path)]
    text = invoke(*arguments)
    assert "This is no certificate." in text and "drawn its noise of rounds 2 to 2" in text
    assert "radius" not in text
    assert pd.read_csv(tmp_path / "certificates.csv")["radius"].isna().all()
    assert json.loads(invoke(*arguments, "--json"))["certified"] is None
    shown = invoke(*arguments, "--anyway")
    assert "This is no certificate." in shown and "radius accuracy rate" in shown
    assert "certified accuracy" not in shown and "Certified against" not in shown


def test_what_the_user_vouches_for_is_said(run: Path, tmp_path: Path) -> None:
    arguments = ["--copies", "20", "--lipschitz", "4", "--out", str(tmp_path)]
    assert "presumes L = 4, as you say." in invoke(str(run), *arguments)
    found = json.loads((tmp_path / "certificate.json").read_text())
    assert found["facts"]["lipschitz"] == 4.0 and found["largest"] > 0
    assert found["error"] == pytest.approx(2 * 10 * 0.001)


def test_noise_after_the_attacked_round_counts(run: Path, tmp_path: Path) -> None:
    found = certify(run, Question(copies=1, round=1, noise=5.0), out=tmp_path)
    norm = read_tensors(run / "checkpoints" / "round-000003.safetensors")[0]["defense/norm"][0]
    assert found["facts"]["noise"] == 0.01  # that of round 1
    allowed = max(norm, 2) + 0.1 * 3
    assert found["facts"]["factor"] == pytest.approx(math.erf(allowed / 5 / math.sqrt(2)))


def test_a_round_without_clients_is_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    rounds = pd.read_csv(copy / "rounds.csv")
    rounds.loc[2, "participants"] = 0
    rounds.to_csv(copy / "rounds.csv", index=False)
    with pytest.raises(UsageError, match=r"round 3 of .* was skipped"):
        certify(copy)


def test_a_run_that_has_not_ended_is_refused(run: Path) -> None:
    last = run / "checkpoints" / "round-000003.safetensors"
    last.rename(run / "moved")
    try:
        with pytest.raises(UsageError, match="no checkpoint of its last round, 3"):
            certify(run)
    finally:
        (run / "moved").rename(last)


@pytest.mark.parametrize(("key", "value"), [("copies", 0), ("share", 2), ("alpha", 1)])
def test_a_question_is_checked_when_it_is_asked(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^{key} = {value} is not allowed"):
        Question(**{key: value})

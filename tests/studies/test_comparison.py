"""The sentence at the end of a comparison tells the truth, pleasant or not."""

import math

import pandas as pd
import pytest

from tffl.config import build
from tffl.core.errors import UsageError
from tffl.studies.comparison import (
    Outcome,
    conclusion,
    last_and_mean,
    percent,
    variant_directory,
    variants,
)


def outcome(accuracy, success=math.nan, caught=0, malicious=20, blamed=0, honest=80):
    return Outcome(
        accuracy=accuracy,
        attack_success=success,
        recall=caught / malicious if malicious else math.nan,
        precision=math.nan,
        fpr=blamed / honest,
        rejected=caught + blamed,
        caught=caught,
        malicious=malicious,
        blamed=blamed,
        honest=honest,
    )


def say(free, undefended, defended):
    outcomes = {"attack-free": free, "undefended": undefended, "defended": defended}
    return conclusion(outcomes, "bias-anomaly")


def test_an_attack_that_bites_and_is_caught():
    assert say(
        outcome(0.95, 0.01, malicious=0), outcome(0.60, 0.98), outcome(0.94, 0.015, 18, blamed=3)
    ) == (
        "Undefended, the attack cut accuracy from 95.0% to 60.0% and raised its success from "
        "1.0% to 98.0%; bias-anomaly caught 18 of 20 malicious updates and blamed 3 of 80 honest "
        "ones, which restored 34.0 points of accuracy and cut attack success from 98.0% to 1.5%."
    )


def test_a_defense_that_catches_nobody_and_saves_nothing():
    told = say(outcome(0.95, 0.0, malicious=0), outcome(0.95, 0.9), outcome(0.95, 0.9))
    assert told.endswith(
        "bias-anomaly caught none of 20 malicious updates and blamed none of 80 honest ones, "
        "which saved nothing measurable."
    )
    assert "accuracy" not in told


def test_a_defense_that_blames_the_innocent_and_costs_accuracy():
    told = say(outcome(0.95, malicious=0), outcome(0.90), outcome(0.70, blamed=12))
    assert "caught none of 20 malicious updates and blamed 12 of 80 honest ones" in told
    assert told.endswith("which saved nothing measurable but lost 20.0 points of accuracy.")
    assert "success" not in told


def test_a_defense_that_makes_the_attack_stronger():
    told = say(outcome(0.9, 0.0, malicious=0), outcome(0.9, 0.3), outcome(0.9, 0.6, 1))
    assert told.endswith("but let attack success rise from 30.0% to 60.0%.")


def test_an_attack_without_effect():
    told = say(outcome(0.9, 0.01, malicious=0), outcome(0.895, 0.01), outcome(0.9, 0.01, 20))
    assert told.startswith("Undefended, the attack did no measurable damage; ")
    assert told.endswith("which saved nothing measurable.")


def test_outcome_reads_last_round_means_and_totals():
    rounds = pd.DataFrame(
        {
            "accuracy": [0.5, 0.8],
            "attack_success": [0.9, 0.1],
            "recall": [0.5, 1.0],
            "precision": [math.nan, 1.0],
            "fpr": [0.0, 0.25],
            "rejected": [1, 3],
            "true_positives": [1, 2],
            "false_negatives": [1, 0],
            "false_positives": [0, 1],
            "true_negatives": [4, 3],
        }
    )
    read = Outcome.of(rounds, {"attack_success_source": "train"})
    assert (read.accuracy, read.attack_success) == (0.8, 0.1)
    assert (read.recall, read.precision, read.fpr) == (0.75, 1.0, 0.125)
    assert (read.rejected, read.caught, read.malicious) == (4, 3, 4)
    assert (read.blamed, read.honest, read.source) == (1, 8, "train")


def test_variants_change_one_thing_each():
    config = build({"attack": {"name": "label-flip"}, "defense": {"name": "bias-anomaly", "k": 3}})
    made = variants(config)
    assert made["defended"] == config
    assert made["undefended"] == config.model_copy(update={"defense": made["undefended"].defense})
    assert made["undefended"].defense.name == "none"
    assert made["attack-free"].federation.malicious_count == 0
    assert made["attack-free"].defense == config.defense


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"attack": {"name": "label-flip"}},
        {"defense": {"name": "bias-anomaly"}},
        {
            "attack": {"name": "label-flip"},
            "defense": {"name": "bias-anomaly"},
            "federation": {"malicious": 0},
        },
    ],
)
def test_nothing_to_compare_is_an_error(values):
    with pytest.raises(UsageError, match="a comparison needs an attack"):
        variants(build(values))


def test_directories_of_the_three_runs(tmp_path):
    assert variant_directory(tmp_path, "defended") == tmp_path
    assert variant_directory(tmp_path, "undefended") == tmp_path / "undefended"
    assert variant_directory(None, "undefended") is None


def test_percent():
    assert percent(1.0) == "100.0%"
    assert percent(math.nan) == "–"


def test_a_ruined_round_leaves_no_mean_accuracy():
    columns = {"round": [1, 2], "attack_success": [0.5, 0.7], "recall": [math.nan, 1.0]}
    last, means = last_and_mean(pd.DataFrame({**columns, "accuracy": [0.5, math.nan]}))
    assert last["round"] == 2 and means["attack_success"] == pytest.approx(0.6)
    assert math.isnan(means["accuracy"])  # a mean of the sound rounds would flatter the defense
    assert means["recall"] == 1.0

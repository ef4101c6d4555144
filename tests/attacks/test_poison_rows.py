"""Attacks on a plain matrix: what the server receives, and what rows alone do not give."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tffl.attacks import attacks, create_attack
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout

ROWS = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
MALICIOUS = [1, 4, 5]
HONEST = np.setdiff1d(np.arange(10), MALICIOUS)
ON_ROWS = (
    "fang-krum", "fang-trimmed-mean", "gaussian", "ipm", "lie", "mimic", "min-max", "min-sum",
    "non-finite", "poisonedfl", "rop", "scaling", "sign-flip", "uniform",
)  # fmt: skip
ON_MODELS = (
    "adaptive-cam", "adaptive-coalition", "chameleon", "constrain-and-scale",
    "distance-constrained", "graph-autoencoder", "mpaf", "neurotoxin",
)  # fmt: skip
ON_DATA = (
    "a3fl",
    "dba",
    "edge-case",
    "iba",
    "label-flip",
    "none",
    "patch-backdoor",
    "semantic-backdoor",
)


def test_every_attack_is_listed_above() -> None:
    assert sorted([*ON_ROWS, *ON_MODELS, *ON_DATA]) == sorted(attacks)


@pytest.mark.parametrize("name", ON_ROWS)
def test_only_the_malicious_rows_change(name: str) -> None:
    before = ROWS.copy()
    sent = create_attack(name, {}).poison_rows(ROWS, malicious=MALICIOUS)
    np.testing.assert_array_equal(ROWS, before)
    assert sent.dtype == np.float32 and not np.shares_memory(sent, ROWS)
    np.testing.assert_array_equal(sent[HONEST], ROWS[HONEST])
    assert (sent[MALICIOUS] != ROWS[MALICIOUS]).any()
    mask = np.isin(np.arange(10), MALICIOUS)
    again = create_attack(name, {}).poison_rows(ROWS, malicious=mask)
    np.testing.assert_array_equal(sent, again)


@pytest.mark.parametrize("name", [*ON_MODELS, *ON_DATA])
def test_what_rows_do_not_give_is_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=r"use it in tffl\.simulate$") as error:
        create_attack(name, {}).poison_rows(ROWS, malicious=MALICIOUS)
    assert "\n" not in str(error.value)
    assert str(error.value).split()[0] in (type(create_attack(name, {})).__name__, "Composed")


def test_a_data_attack_that_scales_its_rows_changes_them() -> None:
    sent = create_attack("label-flip", {"scale": 3}).poison_rows(ROWS, malicious=[2])
    np.testing.assert_array_equal(sent[2], 3 * ROWS[2])


def test_seed_and_round_decide_the_draws() -> None:
    attack = create_attack("gaussian", {})
    first = attack.poison_rows(ROWS, malicious=[0])
    for other in ({"seed": 1}, {"round": 2}):
        assert (attack.poison_rows(ROWS, malicious=[0], **other)[0] != first[0]).any()


def test_the_layout_says_what_may_be_modified() -> None:
    layout = WeightLayout((Entry("a/kernel", (6,), True), Entry("bn/moving_mean", (2,), False)))
    sent = create_attack("sign-flip", {}).poison_rows(ROWS, malicious=[0], layout=layout)
    assert sent[0].tolist() == [*(-ROWS[0, :6]).tolist(), *ROWS[0, 6:].tolist()]


def test_nobody_malicious_changes_nothing() -> None:
    for name in ("sign-flip", "none", "label-flip"):
        sent = create_attack(name, {}).poison_rows(ROWS, malicious=[])
        np.testing.assert_array_equal(sent, ROWS)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"malicious": [10]}, "give positions from 0 to 9, or 10 booleans"),
    ({"malicious": [-1]}, "give positions from 0 to 9"),
    ({"malicious": [True, False]}, "or 10 booleans"),
    ({"malicious": ["a"]}, "give positions"),
    ({"malicious": [0], "rows": np.zeros(3)}, "give a matrix of numbers"),
    ({"malicious": [0], "counts": [1, 2]}, "counts are not allowed: give 10"),
    ({"malicious": [0], "start": np.zeros(3)}, "start of shape"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        create_attack("sign-flip", {}).poison_rows(**{"rows": ROWS, **arguments})
    assert "\n" not in str(error.value)


def test_numbers_of_clients_are_checked() -> None:
    with pytest.raises(UsageError, match=r"set attack\.z"):
        create_attack("lie", {}).poison_rows(ROWS, malicious=[0])


def test_rows_are_attacked_without_tensorflow() -> None:
    code = (
        "import sys, numpy as np, tffl\n"
        "rows = np.ones((6, 3), np.float32)\n"
        "sent = tffl.attacks.MinMax().poison_rows(rows, malicious=[0])\n"
        "verdict = tffl.defenses.MultiKrum(malicious=1).judge_rows(sent)\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

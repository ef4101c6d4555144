"""Every registered attack on updates: what it does not declare, it does not read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.attacks.adversary import Adversary
from tffl.attacks.model_attack import ALL_BENIGN, OVERHEARD, InformedAttack, ModelAttack
from tffl.config import build
from tffl.core.updates import Updates
from tffl.models import models

from .conftest import received

MALICIOUS = np.array([1, 4, 8])
CASES = [
    (name, {"knows": knows, "overheard": 3} if knows else {})
    for name in attacks
    if issubclass(attacks[name], ModelAttack)
    for knows in (
        ("all-benign", "overheard", "colluders")
        if issubclass(attacks[name], InformedAttack)
        else (None,)
    )
]
QUICK = {"adaptive-coalition": {"halvings": 1, "margin": 1.0}}
HEARS = {"knows": "overheard", "overheard": 3}
CASES += [("mpaf", {"spread": "own"}), ("ipm", {"spread": "noise", **HEARS})]


@pytest.fixture
def adversary(dataset, federation) -> Adversary:
    config = build({"seed": 3, "federation": {"clients": 10}, "model": {"name": "cnn"}})
    model = models["cnn"]((6, 6, 2), 4)
    return Adversary(model, config, federation(dataset(np.arange(80)), [8] * 10), MALICIOUS)


@pytest.fixture
def updates(adversary) -> Updates:
    layout, generator = adversary.layout, np.random.default_rng(0)
    drift = generator.normal(0, 0.01, layout.size)
    rows = drift + generator.normal(0, 0.01, (10, layout.size))
    start = layout.flatten(adversary.model.get_weights())
    counts = np.full(10, 8, np.int64)
    return Updates(2, np.arange(10), counts, start, rows.astype(np.float32), layout)


def run(attack: ModelAttack, updates: Updates, adversary: Adversary) -> tuple[np.ndarray, Any]:
    """Plays the attack twice, so that its memory counts; returns the matrix sent last."""
    malicious = np.isin(updates.client_ids, MALICIOUS)
    state = attack.init(adversary)
    for number in (2, 3):
        this = replace(updates, round=number)
        kept = {key: value.copy() for key, value in state.items()}
        sent, after = received(attack, this, malicious, adversary, state)
        for key, value in kept.items():
            np.testing.assert_array_equal(state[key], value)
        state = after
    return sent.matrix, state


def hidden(attack: ModelAttack, updates: Updates, adversary: Adversary) -> np.ndarray:
    """Returns bool [n]: the rows that the attack does not declare to read, in either round."""
    malicious = np.isin(updates.client_ids, MALICIOUS)
    if ALL_BENIGN in attack.declared_knowledge():
        return np.zeros(len(updates), bool)
    if not any(word.endswith(OVERHEARD) for word in attack.declared_knowledge()):
        return ~malicious
    assert isinstance(attack, InformedAttack)
    seen = [
        attack.seen(replace(updates, round=number), malicious, adversary).client_ids
        for number in (2, 3)
    ]
    return ~malicious & ~np.isin(updates.client_ids, np.concatenate(seen))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_reads_only_what_it_declares(adversary, updates, name: str, options: dict) -> None:
    attack = attacks.create(name, {**QUICK.get(name, {}), **options})
    unread = hidden(attack, updates, adversary)
    assert unread.any() == (ALL_BENIGN not in attack.declared_knowledge())
    censored = replace(updates, matrix=updates.matrix.copy())
    censored.matrix[unread] = np.nan
    malicious = np.isin(updates.client_ids, MALICIOUS)
    sent, state = run(attack, updates, adversary)
    again, other = run(attack, censored, adversary)
    np.testing.assert_array_equal(again[malicious], sent[malicious])
    assert set(state) == set(other)
    for key in state:
        np.testing.assert_array_equal(other[key], state[key])
        assert state[key].ndim >= 1 and state[key].dtype.kind in "bif"
    np.testing.assert_array_equal(sent[~malicious], updates.matrix[~malicious])
    assert (sent[malicious] != updates.matrix[malicious]).any()

"""Constrain-and-scale: how colluders train, the factor and its bound, and a run that keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import tffl
from tffl.attacks import attacks, create_attack
from tffl.attacks.composed import Composed
from tffl.attacks.constrain_and_scale import ConstrainAndScale
from tffl.attacks.patch_backdoor import PatchBackdoor
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.record.run_directory import RunDirectory

from .conftest import received


def create(**options: object) -> ConstrainAndScale:
    return attacks.create("constrain-and-scale", options)


@dataclass
class Recorder:
    """An adversary that notes how it is asked to train, and returns its client's id."""

    seed: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)

    def train(self, start: np.ndarray, client: int, round: int, **constraints: Any) -> np.ndarray:
        self.calls.append({"client": client, "round": round, **constraints})
        return np.full(len(start), client, np.float32)


def test_the_scaled_update_replaces_the_model(a_round, layout) -> None:
    this, adversary = a_round(honest=9, malicious=3), Recorder()
    attack = create(alpha=0.25, radius=0.7, epochs=4, learning_rate=0.02)
    sent, state = received(attack, this.updates, this.malicious, adversary, {})
    ids = this.updates.client_ids[this.malicious]
    options = {"radius": 0.7, "alpha": 0.25, "epochs": 4, "learning_rate": 0.02}
    assert adversary.calls == [{"client": id, "round": 1, **options} for id in ids.tolist()]
    expected = this.updates.matrix.copy()
    for row, client in zip(np.flatnonzero(this.malicious), ids, strict=True):
        expected[row, layout.trainable] = 12 / 3 * client  # 12 participants, 3 malicious
    np.testing.assert_allclose(sent.matrix, expected, rtol=1e-6)
    assert state == {}


def test_the_bound_limits_the_factor(a_round, layout) -> None:
    this = a_round()
    free = layout.trainable
    ids = this.updates.client_ids[this.malicious]
    lengths = ids * np.sqrt(free.sum())
    bound = float(np.median(lengths)) * 2.0
    attack = create(factor=2, bound=bound)
    sent, _ = received(attack, this.updates, this.malicious, Recorder(), {})
    norms = np.linalg.norm(sent.matrix[this.malicious][:, free].astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, np.minimum(2 * lengths, bound), rtol=1e-5)
    assert (norms < bound * 0.99).any() and (2 * lengths > bound * 1.01).any()


def test_alone_it_poisons_with_a_patch() -> None:
    attack = create_attack("constrain-and-scale", {"size": 2, "alpha": 0.1})
    assert isinstance(attack, Composed)
    patch, training = attack.parts
    assert isinstance(patch, PatchBackdoor) and training == create(alpha=0.1)
    assert create_attack("constrain-and-scale", attack.options()) == attack
    assert "number of participants" in attack.declared_knowledge()
    assert create(factor=3).declared_knowledge() == ("own data",)


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", 0), ("alpha", 1.1), ("radius", -1), ("bound", "inf")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})


def test_real_updates_keep_radius_and_bound(tmp_path) -> None:
    values = {
        "data": {"dataset": "digits", "train_limit": 200, "test_limit": 100},
        "federation": {"clients": 4, "malicious": 2, "rounds": 1},
        "model": {"name": "lenet5"},
        "training": {"learning_rate": 0.1},
        "attack": {"name": "constrain-and-scale", "radius": 0.03, "bound": 0.05, "alpha": 0.9},
        "record": {"store_updates": "all", "export": False, "figures": False},
    }
    run = tffl.simulate(build(values), tmp_path / "run")
    (updates,) = RunDirectory.open(tmp_path / "run").updates()
    malicious = np.isin(updates.client_ids, run.summary["malicious_clients"])
    norms = updates.norms(trainable=True)
    np.testing.assert_allclose(norms[malicious], 0.05, rtol=1e-4)  # 2 · 0.03 is beyond it
    assert norms[~malicious].min() > 0.05

"""Neurotoxin: which weights may move, from when on, and that it runs with any data attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tffl
from tffl.attacks import attacks, create_attack
from tffl.attacks.composed import Composed
from tffl.attacks.neurotoxin import Neurotoxin, least_used
from tffl.attacks.patch_backdoor import PatchBackdoor
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.record.run_directory import RunDirectory

from .conftest import received


def create(**options: object) -> Neurotoxin:
    return attacks.create("neurotoxin", options)


@dataclass
class Recorder:
    """An adversary that notes how it is asked to train, and returns its client's id."""

    seed: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)

    def train(self, start: np.ndarray, client: int, round: int, **constraints: Any) -> np.ndarray:
        self.calls.append({"start": start, "client": client, "round": round, **constraints})
        return np.full(len(start), client, np.float32)


def test_least_used_by_hand() -> None:
    change = np.array([3.0, -4, 1, 0, 2, -9])
    candidates = np.array([True, True, True, True, True, False])
    kept = least_used(change, candidates, 0.4)
    assert kept.tolist() == [False, False, True, True, True, False]
    assert least_used(change, candidates, 0.0).tolist() == candidates.tolist()
    # 0.3 of 5 is 1.5, rounded up; the first of two equal ones goes.
    assert least_used(np.array([1.0, 1, 1, 1, 1, 1]), candidates, 0.3).tolist() == [
        False, False, True, True, True, False
    ]  # fmt: skip


def test_what_never_moved_is_not_masked() -> None:
    every = np.ones(4, bool)
    assert least_used(np.zeros(4), every, 0.5).tolist() == [True] * 4
    assert least_used(np.array([0, 0, 5.0, 0]), every, 0.5).tolist() == [True, True, False, True]


@given(
    change=arrays(np.float32, 40, elements=st.floats(-10, 10, width=32), unique=True),
    share=st.floats(0, 0.99),
)
def test_whatever_is_left_changed_less(change: np.ndarray, share: float) -> None:
    candidates = np.arange(40) % 4 != 0
    kept = least_used(change, candidates, share)
    left_out = candidates & ~kept
    assert not (kept & ~candidates).any()
    assert int(share * 30 + 0.5) - left_out.sum() in (0, 1)  # one of them may be 0
    if left_out.any() and kept.any():
        assert np.abs(change[left_out]).min() >= np.abs(change[kept]).max()


def test_the_first_round_is_free_and_the_second_is_masked(a_round, layout) -> None:
    this, adversary = a_round(), Recorder()
    attack = create(masked=0.2, radius=0.7)
    ids = this.updates.client_ids[this.malicious].tolist()

    sent, state = received(attack, this.updates, this.malicious, adversary, {})
    assert [call["client"] for call in adversary.calls] == ids
    for call in adversary.calls:
        np.testing.assert_array_equal(call["mask"], layout.trainable)
        assert (call["radius"], call["round"]) == (0.7, 1)
        np.testing.assert_array_equal(call["start"], this.updates.start)
    expected = this.updates.matrix.copy()
    for row, client in zip(np.flatnonzero(this.malicious), ids, strict=True):
        expected[row, layout.trainable] = client
    np.testing.assert_array_equal(sent.matrix, expected)
    assert {key: value.tolist() for key, value in state.items()} == {
        "start": this.updates.start.tolist()
    }

    later, again = a_round(number=4), Recorder()
    kept = {key: value.copy() for key, value in state.items()}
    _, new = received(attack, later.updates, later.malicious, again, state)
    np.testing.assert_array_equal(state["start"], kept["start"])
    np.testing.assert_array_equal(new["start"], later.updates.start)
    change = np.abs(later.updates.start - this.updates.start)
    count = int(0.2 * layout.trainable.sum() + 0.5)
    bound = np.sort(change[layout.trainable])[-count]
    for call in again.calls:
        np.testing.assert_array_equal(call["mask"], layout.trainable & (change < bound))


def test_the_guide_is_remembered_without_attackers(a_round) -> None:
    this, adversary = a_round(), Recorder()
    nobody = np.zeros_like(this.malicious)
    remembered = {"start": this.updates.start + 1}
    rows, state = create().send(this.updates, nobody, adversary, remembered)
    assert adversary.calls == [] and rows is None
    np.testing.assert_array_equal(state["start"], this.updates.start)


def test_scale_and_no_bound(a_round, layout) -> None:
    this, adversary = a_round(), Recorder()
    sent, _ = received(create(scale=-2), this.updates, this.malicious, adversary, {})
    assert all(call["radius"] == np.inf for call in adversary.calls)
    rows = sent.matrix[this.malicious][:, layout.trainable]
    ids = this.updates.client_ids[this.malicious]
    np.testing.assert_array_equal(rows, np.broadcast_to(-2.0 * ids[:, None], rows.shape))


def test_alone_it_poisons_with_a_patch() -> None:
    attack = create_attack("neurotoxin", {"size": 2, "masked": 0.1, "scale": 3})
    assert isinstance(attack, Composed)
    patch, neurotoxin = attack.parts
    assert isinstance(patch, PatchBackdoor) and isinstance(neurotoxin, Neurotoxin)
    assert (patch.size, neurotoxin.masked) == (2, 0.1)
    assert create_attack("neurotoxin", attack.options()) == attack
    with pytest.raises(UsageError, match=r"unknown option of attack .*'sise'"):
        create_attack("neurotoxin", {"sise": 2})


@pytest.mark.parametrize(
    ("option", "value"), [("masked", 1), ("masked", -0.1), ("radius", -1), ("scale", "inf")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})


@pytest.mark.parametrize("name", ["neurotoxin", "dba+neurotoxin"])
def test_real_updates_keep_mask_and_radius(name: str, tmp_path) -> None:
    values = {
        "data": {"dataset": "digits", "train_limit": 200, "test_limit": 100},
        "federation": {"clients": 4, "malicious": 2, "rounds": 3},
        "model": {"name": "lenet5"},
        "training": {"learning_rate": 0.1},
        "attack": {"name": name, "masked": 0.3, "radius": 0.03},
        "record": {"store_updates": "all", "export": False, "figures": False},
    }
    run = tffl.simulate(build(values), tmp_path / "run")
    stored = list(RunDirectory.open(tmp_path / "run").updates())
    for last, this in zip([None, *stored], stored, strict=False):
        malicious = np.isin(this.client_ids, run.summary["malicious_clients"])
        norms = this.norms(trainable=True)
        np.testing.assert_allclose(norms[malicious], 0.03, rtol=1e-5)
        assert norms[~malicious].min() > 0.03
        if last is None:
            continue
        masked = ~least_used(this.start - last.start, np.ones(this.layout.size, bool), 0.3)
        assert masked.sum() == int(0.3 * this.layout.size + 0.5)
        assert (this.deltas[malicious][:, masked] == 0).all()
        assert (this.deltas[malicious][:, ~masked] != 0).any()
        assert (this.deltas[~malicious][:, masked] != 0).any()

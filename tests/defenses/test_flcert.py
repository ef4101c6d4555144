"""FLCert: who is in which group, and that each group is judged by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.tensors import read_tensors, write_tensors
from tffl.core.updates import Updates
from tffl.defenses import Server, create_defense
from tffl.defenses.flcert import deal

from .conftest import LAYOUT


def make(ids: np.ndarray, seed: int = 0, round: int = 1) -> Updates:
    matrix = np.random.default_rng([seed, round]).normal(size=(20, LAYOUT.size))
    counts = np.arange(10, 10 + len(ids))
    start = np.zeros(LAYOUT.size, np.float32)
    return Updates(round, ids, counts, start, matrix[ids].astype(np.float32), LAYOUT)


@given(clients=st.integers(1, 50), groups=st.integers(1, 12), seed=st.integers(0, 99))
def test_groups_are_even(clients: int, groups: int, seed: int) -> None:
    sizes = np.bincount(deal(clients, groups, np.random.default_rng(seed)), minlength=groups)
    assert len(sizes) == groups and sizes.sum() == clients
    assert sizes.max() - sizes.min() <= 1


def test_groups_depend_on_the_seed_alone(server: Server) -> None:
    defense = create_defense("flcert", {"groups": 4})
    wide = replace(server, clients=40)
    groups = defense.groups(wide)
    assert defense.models == 4 and set(groups) == {0, 1, 2, 3}
    np.testing.assert_array_equal(create_defense("flcert+krum", {"groups": 4}).groups(wide), groups)
    others = [defense.groups(replace(wide, seed=seed)) for seed in range(1, 5)]
    assert all((other != groups).any() for other in others)
    # A random order, not id modulo 4: neighbors do not share their groups' order.
    assert (groups != np.arange(40) % 4).any()


@pytest.mark.parametrize("name", ["bias-anomaly", "foolsgold", "fldetector", "nnm+multi-krum"])
def test_each_group_is_judged_by_itself(server: Server, tmp_path: Path, name: str) -> None:
    """As the rule alone would, with its own memory; groups in any order, from checkpoints."""
    server = replace(server, clients=20)
    options = {"window": 3, "votes": 2} if name == "bias-anomaly" else {}
    together, alone = create_defense(f"flcert+{name}", options), create_defense(name, options)
    members = [np.flatnonzero(together.groups(server) == group) for group in range(3)]
    state, states = together.init(server), [alone.init(server) for _ in members]
    for round in (1, 2, 3):
        for group in ((0, 1, 2), (2, 0, 1), (1, 0))[round - 1]:
            updates = make(members[group], round=round)
            before = dict(state)
            verdict, state = together.judge(updates, server, state)
            expected, states[group] = alone.judge(updates, server, states[group])
            np.testing.assert_array_equal(verdict.scores, expected.scores)
            np.testing.assert_array_equal(verdict.accepted, expected.accepted)
            np.testing.assert_array_equal(verdict.aggregate, expected.aggregate)
            for key in before:
                same = before[key] is state[key]
                assert same or key.startswith(f"{group}/")
            write_tensors(tmp_path / "state", state, {})
            state = read_tensors(tmp_path / "state")[0]
    assert len(state) == 3 * len(states[0])
    for key, value in state.items():
        np.testing.assert_array_equal(value, states[int(key[0])][key[2:]])


def test_without_a_rule_each_group_is_averaged(server: Server) -> None:
    server = replace(server, clients=20)
    defense = create_defense("flcert", {})
    assert defense.init(server) == {} and not defense.tracks_clients
    ids = np.flatnonzero(defense.groups(server) == 1)
    updates = make(ids)
    verdict, state = defense.judge(updates, server, {})
    expected = np.average(updates.matrix, axis=0, weights=updates.sample_counts)
    np.testing.assert_allclose(verdict.aggregate, expected, atol=1e-6)
    assert verdict.accepted.all() and state == {}
    updates.matrix[0, 3] = np.nan
    verdict, _ = defense.judge(updates, server, {})
    assert verdict.convicted.tolist() == [True] + [False] * (len(ids) - 1)
    assert verdict.weights[0] == 0 and np.isfinite(verdict.aggregate).all()
    assert verdict.reasons[:2] == ("the update holds NaN or infinity", "")
    with pytest.raises(UsageError, match="one group of clients at a time"):
        defense.judge(make(np.arange(20)), server, {})


def test_is_what_its_parts_are(layout: WeightLayout) -> None:
    defense = create_defense("flcert+multi-krum", {"groups": 5, "malicious": 1})
    assert defense.options()["groups"] == 5 and defense.options()["malicious"] == 1
    assert defense.declared_knowledge() == ("told malicious = 1",)
    assert create_defense("flcert+foolsgold", {}).tracks_clients
    assert create_defense("flcert+fltrust", {}).declared_knowledge() == ("root data",)
    defense.check(25, layout)  # five in a group


def test_refusals(layout: WeightLayout, server: Server) -> None:
    with pytest.raises(UsageError, match=r"defense\.groups = 4 is not allowed with 3 participants"):
        create_defense("flcert", {"groups": 4}).check(3, layout)
    with pytest.raises(UsageError, match=r"defense\.groups = 7 is not allowed with 6 clients"):
        create_defense("flcert", {"groups": 7}).groups(server)
    with pytest.raises(UsageError, match=r"defense\.groups = 1"):
        create_defense("flcert", {"groups": 1})
    # 11 clients in 4 groups: some have only two, and flame needs three.
    with pytest.raises(UsageError, match="flame needs at least 3 participants a round, not 2"):
        create_defense("flcert+flame", {"groups": 4}).check(11, layout)
    with pytest.raises(UsageError, match="name flcert first"):
        create_defense("nnm+flcert+krum", {})
    with pytest.raises(UsageError, match="more than once"):
        create_defense("flcert+flcert", {})
    with pytest.raises(UsageError, match="median cannot stand before"):
        create_defense("median+flcert", {})

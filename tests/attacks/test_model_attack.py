"""What every attack on updates obeys: columns, share, knowledge, schedule."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from tffl.attacks import Attack, attacks, create_attack
from tffl.attacks.base import OWN_DATA
from tffl.attacks.model_attack import ALL_BENIGN, COLLUDERS, InformedAttack, ModelAttack
from tffl.core.errors import UsageError


@dataclass(frozen=True)
class Ones(ModelAttack):
    """Sends ones everywhere, also where it may not."""

    same: bool = True

    def craft(self, updates, malicious, adversary, state):
        count = 1 if self.same else malicious.sum()
        rows = np.full((count, updates.layout.size), 1e6, np.float32)
        return rows, {"calls": state.get("calls", np.zeros(1)) + 1}


@dataclass(frozen=True)
class Informed(InformedAttack):
    """Only looks."""


@pytest.mark.parametrize("same", [True, False])
def test_writes_malicious_rows_in_trainable_columns_only(a_round, layout, same: bool) -> None:
    this = a_round()
    sent, state = this.attacked(Ones(same=same))
    before, mask = this.updates.matrix, this.malicious
    assert (sent.matrix[mask][:, layout.trainable] == 1e6).all()
    np.testing.assert_array_equal(sent.matrix[~mask], before[~mask])
    frozen = ~layout.trainable
    np.testing.assert_array_equal(sent.matrix[:, frozen], before[:, frozen])
    assert state["calls"] == 1


def test_nobody_malicious_takes_part(a_round) -> None:
    this = replace(a_round(), malicious=np.zeros(12, bool))
    memory = {"calls": np.ones(1)}
    sent, state = this.attacked(Ones(), memory)
    np.testing.assert_array_equal(sent.matrix, this.updates.matrix)
    assert state is memory


@pytest.mark.parametrize(("ratio", "count"), [(1e-9, 1), (0.1, 4), (0.5, 21), (0.99, 41), (1, 41)])
def test_the_share_of_modified_parameters_is_exact(a_round, layout, ratio, count) -> None:
    this = a_round()
    free = Ones(poisoning_ratio=ratio).modifiable(layout, seed=1)
    assert free.sum() == count
    assert not free[~layout.trainable].any()
    sent, _ = this.attacked(Ones(poisoning_ratio=ratio))
    changed = sent.matrix != this.updates.matrix
    assert (changed.sum(axis=1) == np.where(this.malicious, count, 0)).all()


def test_the_modified_parameters_are_drawn_once_per_experiment(a_round) -> None:
    def columns(**options) -> list[int]:
        this = a_round(**options)
        changed = this.attacked(Ones(poisoning_ratio=0.3))[0].matrix != this.updates.matrix
        return np.flatnonzero(changed.any(axis=0)).tolist()

    assert columns(number=1) == columns(number=2) == columns(malicious=1, honest=4)
    assert columns(experiment=5) != columns(experiment=6)


@pytest.mark.parametrize("ratio", [0, 1.5, "nan"])
def test_refuses_an_impossible_share(ratio) -> None:
    with pytest.raises(UsageError, match=r"attack\.poisoning_ratio"):
        attacks.create("ipm", {"poisoning_ratio": ratio})


def test_sees_what_it_declares(a_round) -> None:
    this = a_round()
    ids, mask = this.updates.client_ids, this.malicious

    def seen(number: int = 1, mask: np.ndarray = mask, **options) -> list[int]:
        updates = replace(this.updates, round=number)
        return Informed(**options).seen(updates, mask, this.adversary).client_ids.tolist()

    assert seen() == ids[~mask].tolist()
    assert seen(knows="colluders") == ids[mask].tolist()
    heard = seen(knows="overheard", overheard=4)
    assert len(set(heard)) == 4 and heard == sorted(heard) and set(heard) <= set(ids[~mask])
    assert heard == seen(knows="overheard", overheard=4)
    assert any(heard != seen(number, knows="overheard", overheard=4) for number in range(2, 6))
    assert seen(knows="overheard", overheard=99) == ids[~mask].tolist()
    everybody = np.ones(12, bool)
    for knows in ("all-benign", "overheard", "colluders"):
        assert seen(mask=everybody, knows=knows) == ids.tolist()


def test_declares_what_it_is_granted() -> None:
    assert Informed().declared_knowledge() == (OWN_DATA, ALL_BENIGN)
    assert Informed(knows="overheard", overheard=3).declared_knowledge() == (
        OWN_DATA,
        "3 overheard updates",
    )
    assert Informed(knows="colluders").declared_knowledge() == (OWN_DATA, COLLUDERS)
    krum = attacks.create("fang-krum", {"knows": "colluders"})
    assert krum.declared_knowledge() == (OWN_DATA, COLLUDERS, "aggregation rule")
    assert attacks.create("lie", {}).declared_knowledge() == (
        OWN_DATA,
        ALL_BENIGN,
        "number of participants",
    )
    assert attacks.create("lie", {"z": 1}).declared_knowledge() == (OWN_DATA, ALL_BENIGN)
    assert attacks.create("scaling", {}).declared_knowledge() == (
        OWN_DATA,
        "number of participants",
    )
    assert attacks.create("scaling", {"factor": 2}).declared_knowledge() == (OWN_DATA,)
    assert attacks.create("sign-flip", {"knows": "overheard"}).declared_knowledge() == (OWN_DATA,)
    assert attacks.create("sign-flip", {"flips": "mean"}).declared_knowledge() == (
        OWN_DATA,
        ALL_BENIGN,
    )


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ({}, range(1, 13)),
        ({"from_round": 4}, range(4, 13)),
        ({"from_round": 4, "until_round": 4}, [4]),
        ({"until_round": 3}, [1, 2, 3]),
        ({"from_round": 2, "every_rounds": 4}, [2, 6, 10]),
        ({"from_round": 2, "until_round": 9, "every_rounds": 4}, [2, 6]),
        ({"off_rounds": 3}, [1, 5, 9]),
        ({"on_rounds": 5}, range(1, 13)),
        ({"from_round": 3, "on_rounds": 2, "off_rounds": 2}, [3, 4, 7, 8, 11, 12]),
        ({"from_round": 3, "until_round": 7, "on_rounds": 3, "off_rounds": 1}, [3, 4, 5, 7]),
    ],
)
def test_schedule(options: dict, rounds) -> None:
    for name in ("ipm", "label-flip", "semantic-backdoor", "label-flip+scaling"):
        attack = create_attack(name, options)
        assert [round for round in range(1, 13) if attack.active(round)] == list(rounds)


def test_refuses_a_schedule_without_rounds() -> None:
    attack = attacks.create("ipm", {"from_round": 4, "until_round": 3})
    with pytest.raises(UsageError, match=r"lies before attack\.from_round = 4"):
        attack.check_clients(2, 10)
    twice = attacks.create("ipm", {"every_rounds": 3, "off_rounds": 1})
    with pytest.raises(UsageError, match=r"not allowed together: .* attack\.off_rounds = 2"):
        twice.check_clients(2, 10)
    wrong = ({"from_round": 0}, {"until_round": -1}, {"every_rounds": 0})
    for option in (*wrong, {"on_rounds": 0}, {"off_rounds": -1}):
        with pytest.raises(UsageError, match="is not allowed"):
            attacks.create("ipm", option)


@pytest.mark.parametrize("name", [n for n in attacks if n != "none"])
def test_the_schedule_keeps_its_names_to_itself(name: str) -> None:
    """An attack with an option named like one of the schedule's would change both at once."""
    cls = attacks[name]
    shared = {field.name: field.default for field in fields(Attack)}
    assert {f.name: f.default for f in fields(cls) if f.name in shared} == shared

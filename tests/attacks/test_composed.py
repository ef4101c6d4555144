"""Attacks joined by `+`."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from tffl.attacks import attacks, create_attack
from tffl.attacks.model_attack import ModelAttack
from tffl.core.errors import UsageError

DATA = [n for n in attacks if not issubclass(attacks[n], ModelAttack)]
MODEL = [n for n in attacks if issubclass(attacks[n], ModelAttack)]


def test_one_name_is_no_composition() -> None:
    assert type(create_attack("scaling", {"factor": 2})) is attacks["scaling"]


def test_flips_labels_then_scales(dataset, federation, a_round) -> None:
    options = {"source": "green", "target": "gray", "factor": 4, "scale": 0.5, "from_round": 2}
    attack = create_attack("label-flip+scaling", options)
    data = dataset(np.arange(12))
    attack.check(data)
    before = federation(data, [6, 6])
    poisoned = attack.poison(before, np.array([1]), seed=0)
    assert poisoned.clients[0] is before.clients[0]
    assert poisoned.clients[1].labels.tolist() == [2, 3, 0, 3, 2, 3]
    success = attack.success_set(poisoned, seed=0)
    assert success is not None and set(success.targets.tolist()) == {3}
    assert not attack.active(1) and attack.active(2)
    this = a_round()
    np.testing.assert_allclose(this.sent(attack), 2 * this.own, rtol=1e-6)
    assert attack.options()["factor"] == 4 and attack.options()["source"] == "green"
    assert attack.declared_knowledge() == ("own data",)
    assert (
        create_attack("label-flip+lie", {}).declared_knowledge()
        == attacks.create("lie", {}).declared_knowledge()
    )


def test_every_part_keeps_its_own_memory(a_round) -> None:
    attack, alone = create_attack("label-flip+mimic", {}), create_attack("mimic", {})
    state = apart = None
    for number in (1, 2, 3):
        this = a_round(number=number)
        sent, state = this.attacked(attack, state)
        same, apart = this.attacked(alone, apart)
        np.testing.assert_array_equal(sent.matrix, same.matrix)
    assert {key.removeprefix("1/") for key in state} == set(apart)
    for key in apart:
        np.testing.assert_array_equal(state[f"1/{key}"], apart[key])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scaling+label-flip", "in this order"),
        ("label-flip+patch-backdoor", "join one attack on data with one on updates"),
        ("lie+ipm", "join one attack on data with one on updates"),
        ("label-flip+lie+ipm", "is not allowed"),
        ("none+scaling", "leave it out"),
        ("label-flip+none", "leave it out"),
        ("label-flip+label-flip", "names label-flip more than once"),
        ("label-flip+scalin", "did you mean 'scaling'"),
        ("label-flip+", "unknown attack ''"),
    ],
)
def test_refuses_what_does_not_go_together(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_attack(name, {})


def test_refuses_options_that_no_part_has() -> None:
    with pytest.raises(UsageError, match="'facto': did you mean 'factor'"):
        create_attack("label-flip+scaling", {"facto": 2})


def test_every_part_is_checked() -> None:
    with pytest.raises(UsageError, match=r"set attack\.z"):
        create_attack("label-flip+lie", {}).check_clients(1, 10)


@pytest.mark.parametrize("first", [n for n in DATA if n != "none"])
@pytest.mark.parametrize("second", MODEL)
def test_shared_options_mean_the_same(first: str, second: str) -> None:
    """A joined attack has one value for options of the same name: their defaults must agree."""
    data = {field.name: (field.type, field.default) for field in fields(attacks[first])}
    for field in fields(attacks[second]):
        assert data.get(field.name, (field.type, field.default)) == (field.type, field.default)

"""Classes by name, draws, scaled rows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.attacks.data_attack import scaled
from tffl.attacks.parts import class_index, draw
from tffl.core.errors import UsageError
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates


def test_class_by_name_or_number(dataset) -> None:
    data = dataset(np.arange(4))
    assert class_index(data, "blue", "attack.target") == 2
    assert class_index(data, 2, "attack.target") == 2
    for value in (-1, 4, "purple"):
        with pytest.raises(UsageError, match=r"attack\.target"):
            class_index(data, value, "attack.target")


def test_draw_rounds_and_repeats() -> None:
    candidates = np.arange(10, 20)
    assert draw(candidates, 2.5, 1, "x", 0).shape == (3,)
    assert draw(candidates, 99, 1, "x", 0).tolist() == candidates.tolist()
    assert draw(candidates, 0.4, 1, "x", 0).shape == (0,)
    assert draw(np.empty(0, np.int64), 3, 1, "x", 0).shape == (0,)
    first = draw(candidates, 5, 1, "x", 0)
    assert first.tolist() == draw(candidates, 5, 1, "x", 0).tolist() == sorted(set(first))
    assert any(draw(candidates, 5, 1, "x", c).tolist() != first.tolist() for c in range(1, 5))


# Scaling reads nothing that attackers own.
ADVERSARY = cast("Any", None)


def updates(deltas: list[list[float]]) -> Updates:
    layout = WeightLayout((Entry("a/kernel", (2,), True), Entry("bn/moving_variance", (1,), False)))
    rows = np.array(deltas, dtype=np.float32)
    n = len(rows)
    return Updates(1, np.arange(n), np.ones(n, np.int64), np.zeros(3, np.float32), rows, layout)


def test_scales_malicious_trained_columns_only() -> None:
    round = updates([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    rows = scaled(round.select(np.array([False, True, False])), -2.5)
    assert rows.tolist() == [[-10, -12.5, 6]]
    assert rows.dtype == np.float32
    assert scaled(round, 1.0) is None


@pytest.mark.parametrize("name", ["label-flip", "patch-backdoor", "dba", "edge-case"])
def test_every_data_attack_scales(name: str) -> None:
    round = updates([[1, 2, 3], [4, 5, 6]])
    attack = attacks.create(name, {"scale": 3})
    rows, _ = attack.send(round, np.array([True, False]), ADVERSARY, {})
    assert rows.tolist() == [[3, 6, 3]] and attack.changes_updates()
    plain = attacks.create(name, {})
    assert plain.send(round, np.array([True, True]), ADVERSARY, {}) == (None, {})
    assert not plain.changes_updates()


def test_a_huge_scale_gives_infinity_without_noise(recwarn) -> None:
    round = updates([[1, -2, 0]])
    assert scaled(round, 1e300).tolist() == [[np.inf, -np.inf, 0]]
    assert not recwarn.list


@pytest.mark.parametrize("name", ["label-flip", "patch-backdoor", "semantic-backdoor"])
@pytest.mark.parametrize("value", ["banana", "nan", "inf", None])
def test_scale_must_be_a_number(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=r"^attack\.scale = .* is not allowed") as error:
        attacks.create(name, {"scale": value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list(attacks))
def test_is_described_in_one_line(name: str) -> None:
    entry = attacks.describe(name)
    assert entry["summary"].endswith(".")
    assert entry["reference"] or name == "none"

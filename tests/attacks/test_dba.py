"""Distributed backdoor: whose sample carries which strip, and on what success is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.attacks.dba import Dba, parts_of, stamp
from tffl.core.errors import UsageError


def create(**options: object) -> Dba:
    return attacks.create("dba", {"target": "blue", **options})


def drawn(attack: Dba, height: int, width: int, parts: list[int] | None = None) -> list[str]:
    image = np.zeros((1, height, width, 1), np.uint8)
    where = attack.parts(height, width)
    marked = stamp(image, [where[p] for p in (range(4) if parts is None else parts)], 1)
    return ["".join(".#"[pixel] for pixel in row) for row in marked[0, :, :, 0].tolist()]


def test_the_authors_trigger_on_mnist() -> None:
    picture = drawn(create(), 28, 28)
    assert picture[0] == picture[3] == "####..####" + "." * 18
    assert all(row == "." * 28 for row in (*picture[1:3], *picture[4:]))


def test_the_authors_triggers_on_other_images() -> None:
    cifar = drawn(create(length=6, gap=3), 32, 32)
    assert cifar[0] == cifar[4] == "######...######" + "." * 17
    tiny = drawn(create(length=10, gap=2), 64, 64)
    assert [row for row, line in enumerate(tiny) if "#" in line] == [0, 1, 4, 5]
    assert tiny[5] == "#" * 10 + ".." + "#" * 10 + "." * 42


def test_position_and_parts() -> None:
    attack = create(length=2, gap=1, thickness=1, top=1, left=0)
    assert drawn(attack, 5, 5) == [".....", "##.##", ".....", "##.##", "....."]
    assert drawn(attack, 5, 5, [1]) == [".....", "...##", ".....", ".....", "....."]
    assert drawn(attack, 5, 5, [2]) == [".....", ".....", ".....", "##...", "....."]


@given(colluders=st.integers(1, 12))
def test_all_parts_are_dealt_evenly(colluders: int) -> None:
    dealt = [parts_of(turn, colluders) for turn in range(colluders)]
    counts = np.bincount(np.concatenate(dealt), minlength=4)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1
    assert all(len(parts) == 1 for parts in dealt) == (colluders >= 4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(malicious=st.sets(st.integers(0, 7), min_size=1), seed=st.integers(0, 3))
def test_each_colluder_stamps_its_own_part(
    dataset, federation, malicious: set[int], seed: int
) -> None:
    attack = create(rate=0.5)
    before = federation(dataset(np.arange(80)), [10] * 8)
    colluders = sorted(malicious)
    after = attack.poison(before, np.array(colluders), seed)
    where = attack.parts(6, 6)
    for client, (old, new) in enumerate(zip(before.clients, after.clients, strict=True)):
        if client not in malicious:
            assert new is old
            continue
        own = [where[part] for part in parts_of(colluders.index(client), len(colluders))]
        replaced = new.indices >= 80
        assert replaced.sum() == 5
        assert (new.labels[replaced] == 2).all()
        assert (old.labels[replaced] != 2).all()
        np.testing.assert_array_equal(new.indices[~replaced], old.indices[~replaced])
        np.testing.assert_array_equal(new.labels[~replaced], old.labels[~replaced])
        originals = before.images[old.indices[replaced]]
        np.testing.assert_array_equal(
            after.images[new.indices[replaced]], stamp(originals, own, 255)
        )


def test_success_shows_all_parts_to_the_other_classes(dataset, federation) -> None:
    data = dataset(np.arange(12))
    attack = create()
    success = attack.success_set(federation(data, [6, 6]), seed=0)
    others = data.test_images[data.test_labels != 2]
    np.testing.assert_array_equal(success.images, stamp(others, attack.parts(6, 6), 255))
    assert (success.images != others).any(axis=-1).sum(axis=(1, 2)).tolist() == [4] * 15
    assert success.targets.tolist() == [2] * 15
    assert success.targets.dtype == np.int32
    assert success.source == "test"


def test_nobody_malicious_changes_nothing(dataset, federation) -> None:
    before = federation(dataset(np.array([2, 6, 10, 1])), [3, 1])
    assert create().poison(before, np.empty(0, np.int64), seed=0) is before
    with pytest.raises(UsageError, match=r"poisons nothing: malicious clients \[0\]"):
        create().poison(before, np.array([0]), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 3}, "ends at pixel 3 x 7 and does not fit into images of 6 x 6"),
        ({"thickness": 2, "gap": 3}, "ends at pixel 7 x 5"),
        ({"top": 4}, "ends at pixel 7 x 3"),
        ({"left": 4}, "ends at pixel 3 x 7"),
        ({"target": "blu"}, "did you mean 'blue'"),
    ],
)
def test_refuses_what_cannot_work(dataset, options: dict, message: str) -> None:
    create(length=2, gap=2, top=2).check(dataset(np.arange(8)))
    with pytest.raises(UsageError, match=message):
        create(**options).check(dataset(np.arange(8)))


@pytest.mark.parametrize(
    ("option", "value"), [("rate", 0), ("length", 0), ("value", 256), ("gap", -1), ("scale", "nan")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option}.* = .* is not allowed"):
        create(**{option: value})

"""Semantic backdoor: who holds which poisoned images, and on what success is measured."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.attacks.semantic_backdoor import PATTERNS, SemanticBackdoor
from tffl.config import DataConfig
from tffl.core.errors import UsageError
from tffl.data.build import load_dataset

TRAIT = (1000, 1004, 1008, 1012)  # all of class 0, "red"
IDS = np.arange(1000, 1100)


def create(**options: object) -> SemanticBackdoor:
    return attacks.create(
        "semantic-backdoor", {"indices": list(TRAIT), "target": "blue", **options}
    )


def ids_of(federation, client: int) -> np.ndarray:
    return federation.pool_ids[federation.clients[client].indices]


def test_published_lists_are_complete() -> None:
    assert {name: len(ids) for name, ids in PATTERNS.items()} == {
        "racing-stripes": 22,
        "green-cars": 30,
        "striped-walls": 12,
    }
    for ids in PATTERNS.values():
        assert list(ids) == sorted(set(ids))
        assert ids[0] >= 0
        assert ids[-1] < 50_000


def test_every_third_sample_of_one_attacker_by_hand(dataset, federation) -> None:
    data = dataset(IDS)
    attack = create(every=3, holdout=0)
    attack.check(data)
    reserved = attack.reserve(data)
    np.testing.assert_array_equal(reserved, [0, 4, 8, 12])
    before = federation(data, [10, 10, 7], reserved)
    after = attack.poison(before, np.array([1]), seed=1)
    np.testing.assert_array_equal(
        ids_of(after, 1), [1000, 1015, 1016, 1004, 1018, 1019, 1008, 1021, 1022, 1012]
    )
    np.testing.assert_array_equal(after.clients[1].labels, [2, 3, 0, 2, 2, 3, 2, 1, 2, 2])
    success = attack.success_set(after, seed=1)
    np.testing.assert_array_equal(success.images, data.train_images[reserved])
    np.testing.assert_array_equal(success.targets, [2, 2, 2, 2])
    assert success.source == "train"


def test_held_out_images_are_trained_by_nobody(dataset, federation) -> None:
    data = dataset(IDS)
    attack = create(every=1)
    before = federation(data, [30, 30], attack.reserve(data))
    after = attack.poison(before, np.array([0, 1]), seed=3)
    success = attack.success_set(after, seed=3)
    assert success.source == "test"
    assert success.images.dtype == np.uint8
    assert success.targets.tolist() == [2]
    held = 256 * int(success.images[0, 0, 0, 0]) + int(success.images[0, 0, 0, 1])
    assert held in TRAIT
    used = set(ids_of(after, 0).tolist()) | set(ids_of(after, 1).tolist())
    assert used & set(TRAIT) == set(TRAIT) - {held}
    again = attack.success_set(attack.poison(before, np.array([0, 1]), seed=3), seed=3)
    np.testing.assert_array_equal(again.images, success.images)
    others = {attack._split(seed)[1].tobytes() for seed in range(20)}
    assert len(others) > 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    size=st.integers(1, 12),
    every=st.integers(1, 5),
    malicious=st.sets(st.integers(0, 5), min_size=1),
)
def test_total_is_constant_and_honest_clients_are_untouched(
    dataset, federation, size: int, every: int, malicious: set[int]
) -> None:
    data = dataset(IDS)
    attack = create(every=every, holdout=0)
    before = federation(data, [size] * 6, attack.reserve(data))
    after = attack.poison(before, np.array(sorted(malicious)), seed=0)
    assert after.images is before.images
    poisoned = 0
    for client, (old, new) in enumerate(zip(before.clients, after.clients, strict=True)):
        if client not in malicious:
            assert new is old
            continue
        changed = np.isin(after.pool_ids[new.indices], TRAIT)
        np.testing.assert_array_equal(new.indices[~changed], old.indices[~changed])
        np.testing.assert_array_equal(new.labels[~changed], old.labels[~changed])
        assert (new.labels[changed] == 2).all()
        assert (new.indices.dtype, new.labels.dtype) == (np.int32, np.int32)
        poisoned += changed.sum()
    assert poisoned == -(-size // every)


def test_copies_are_dealt_in_turn_over_attackers(dataset, federation) -> None:
    data = dataset(IDS)
    attack = create(every=1, holdout=0)
    before = federation(data, [10, 10, 10], attack.reserve(data))
    after = attack.poison(before, np.array([0, 2]), seed=0)
    used = np.concatenate([ids_of(after, client) for client in (0, 2)])
    _, counts = np.unique(used[np.isin(used, TRAIT)], return_counts=True)
    assert counts.tolist() == [3, 3, 2, 2]


def test_nobody_malicious_changes_nothing(dataset, federation) -> None:
    data = dataset(IDS)
    before = federation(data, [5, 5])
    assert create().poison(before, np.empty(0, dtype=np.int64), seed=0) is before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "blu"}, "unknown class of colors in attack.target: 'blu': did you mean 'blue'"),
        ({"target": 4}, "attack.target = 4 is not a class of colors: give a number from 0 to 3"),
        ({"target": "red"}, "attack.target = 'red' is the true class of 4 backdoor images"),
        ({"indices": [1000, 5]}, "1 of 2 backdoor images are not among .* id 5"),
        ({"indices": [1000, 1000]}, "names an image more than once"),
        ({"indices": [1000]}, "set attack.holdout=0"),
        ({"indices": []}, "lists of images for cifar10 only: for colors set attack.indices"),
    ],
)
def test_refuses_what_cannot_work(dataset, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**options).check(dataset(IDS))


@pytest.mark.parametrize(
    ("option", "value"),
    [("every", 0), ("holdout", 1.0), ("scale", "banana"), ("scale", "nan"), ("pattern", "cars")],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"attack\.{option}.* = .* is not allowed") as error:
        create(**{option: value})
    assert "\n" not in str(error.value)


@pytest.mark.skipif("TFFL_DATA_DIR" not in os.environ, reason="needs prepared CIFAR-10")
def test_lists_select_cars_on_real_cifar10() -> None:
    data = load_dataset(DataConfig(dataset="cifar10", test_limit=10))
    cars = data.class_names.index("automobile")
    for pattern in PATTERNS:
        attack = attacks.create("semantic-backdoor", {"pattern": pattern})
        attack.check(data)
        assert (data.train_labels[attack.reserve(data)] == cars).all()

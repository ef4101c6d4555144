"""Label flip: which labels change, and on what success is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.attacks.label_flip import LabelFlip
from tffl.core.errors import UsageError


def create(**options: object) -> LabelFlip:
    return attacks.create("label-flip", {"source": "green", "target": "gray", **options})


def test_targeted_by_hand(dataset, federation) -> None:
    data = dataset(np.arange(12))
    before = federation(data, [6, 6])
    after = create().poison(before, np.array([1]), seed=0)
    assert before.clients[1].labels.tolist() == [2, 3, 0, 1, 2, 3]
    assert after.clients[1].labels.tolist() == [2, 3, 0, 3, 2, 3]
    assert after.clients[1].labels.dtype == np.int32
    np.testing.assert_array_equal(after.clients[1].indices, before.clients[1].indices)
    success = create().success_set(after, seed=0)
    np.testing.assert_array_equal(success.images, data.test_images[data.test_labels == 1])
    assert success.targets.tolist() == [3] * 5
    assert success.targets.dtype == np.int32
    assert success.source == "test"


def test_all_to_all_by_hand(dataset, federation) -> None:
    data = dataset(np.arange(10), class_names=("a", "b", "c"))
    attack = create(mode="all-to-all")
    attack.check(data)
    after = attack.poison(federation(data, [5, 5]), np.array([0, 1]), seed=0)
    assert after.clients[0].labels.tolist() == [2, 1, 0, 2, 1]
    assert after.clients[1].labels.tolist() == [0, 2, 1, 0, 2]
    success = attack.success_set(after, seed=0)
    changed = data.test_labels != 1
    np.testing.assert_array_equal(success.images, data.test_images[changed])
    np.testing.assert_array_equal(success.targets, 2 - data.test_labels[changed])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rate=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    mode=st.sampled_from(["targeted", "all-to-all"]),
    malicious=st.sets(st.integers(0, 3), min_size=1),
    seed=st.integers(0, 5),
)
def test_only_malicious_labels_change(
    dataset, federation, rate: float, mode: str, malicious: set[int], seed: int
) -> None:
    before = federation(dataset(np.arange(80)), [20] * 4)
    after = create(mode=mode, rate=rate).poison(before, np.array(sorted(malicious)), seed)
    assert after.images is before.images
    for client, (old, new) in enumerate(zip(before.clients, after.clients, strict=True)):
        if client not in malicious:
            assert new is old
            continue
        victims = 20 if mode == "all-to-all" else 5
        assert (new.labels != old.labels).sum() == int(rate * victims + 0.5)


def test_a_flip_without_victims_is_refused(dataset, federation) -> None:
    before = federation(dataset(np.array([0, 2, 4, 6, 8, 1])), [5, 1])
    with pytest.raises(UsageError, match=r"changes nothing: malicious clients \[0\] hold too few"):
        create().poison(before, np.array([0]), seed=0)
    assert create().poison(before, np.empty(0, np.int64), seed=0) is before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "green"}, "source = 'green' and attack.target = 'green' are the same class"),
        ({"target": 1}, "attack.target = 1 are the same class"),
        ({"source": "gren"}, "in attack.source: 'gren': did you mean 'green'"),
        ({"target": 7}, "attack.target = 7 is not a class of colors"),
    ],
)
def test_refuses_what_cannot_work(dataset, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**options).check(dataset(np.arange(8)))


def test_refuses_a_source_without_test_images(dataset) -> None:
    names = (*"abcdefghijklmnopqrstuvwxyz", *"ABCD")
    with pytest.raises(UsageError, match="no test image of a flipped class"):
        create(source=25, target=0).check(dataset(np.arange(30), class_names=names))


@pytest.mark.parametrize(("option", "value"), [("rate", 0), ("rate", 1.5), ("mode", "some")])
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})

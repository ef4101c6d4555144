"""Patch backdoor: which samples carry the square, and on what success is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tffl.attacks import attacks
from tffl.attacks.patch_backdoor import PatchBackdoor, stamp
from tffl.core.errors import UsageError


def create(**options: object) -> PatchBackdoor:
    return attacks.create("patch-backdoor", {"size": 2, "target": "blue", **options})


@pytest.mark.parametrize(
    ("corner", "inside", "outside"),
    [
        ("top-left", (1, 1), (1, 2)),
        ("top-right", (1, 4), (1, 3)),
        ("bottom-left", (4, 1), (3, 1)),
        ("bottom-right", (4, 4), (4, 3)),
    ],
)
def test_square_sits_in_its_corner(corner, inside: tuple, outside: tuple) -> None:
    images = np.full((3, 6, 6, 2), 7, dtype=np.uint8)
    stamped = stamp(images, 2, 200, corner)
    assert (images == 7).all()
    assert (stamped == 200).sum() == 3 * 4 * 2
    assert (stamped[:, inside[0], inside[1]] == 200).all()
    assert (stamped[:, outside[0], outside[1]] == 7).all()


def test_everything_poisoned_by_hand(dataset, federation) -> None:
    data = dataset(np.arange(12))
    attack = create(rate=1.0, corner="top-left")
    attack.check(data)
    before = federation(data, [6, 6])
    after = attack.poison(before, np.array([1]), seed=0)
    # Labels 2, 3, 0, 1, 2, 3: the two samples of the target itself stay.
    assert after.clients[1].indices.tolist() == [6, 12, 13, 14, 10, 15]
    assert after.clients[1].labels.tolist() == [2] * 6
    assert after.pool_ids.tolist() == [*range(12), -1, -1, -1, -1]
    expected = stamp(data.train_images[[7, 8, 9, 11]], 2, 255, "top-left")
    np.testing.assert_array_equal(after.images[12:], expected)
    np.testing.assert_array_equal(after.images[:12], data.train_images)


def test_success_excludes_the_target_class(dataset, federation) -> None:
    data = dataset(np.arange(12))
    success = create().success_set(federation(data, [6, 6]), seed=0)
    expected = stamp(data.test_images[data.test_labels != 2], 2, 255, "bottom-right")
    np.testing.assert_array_equal(success.images, expected)
    assert success.targets.tolist() == [2] * 15
    assert success.targets.dtype == np.int32
    assert success.source == "test"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rate=st.sampled_from([0.1, 0.3, 0.5]),
    malicious=st.sets(st.integers(0, 3), min_size=1),
    seed=st.integers(0, 5),
)
def test_only_malicious_samples_are_replaced(
    dataset, federation, rate: float, malicious: set[int], seed: int
) -> None:
    before = federation(dataset(np.arange(80)), [20] * 4)
    after = create(rate=rate).poison(before, np.array(sorted(malicious)), seed)
    for client, (old, new) in enumerate(zip(before.clients, after.clients, strict=True)):
        if client not in malicious:
            assert new is old
            continue
        replaced = new.indices >= 80
        assert replaced.sum() == int(rate * 20 + 0.5)
        assert (new.labels[replaced] == 2).all()
        assert (old.labels[replaced] != 2).all()
        np.testing.assert_array_equal(new.indices[~replaced], old.indices[~replaced])
        np.testing.assert_array_equal(new.labels[~replaced], old.labels[~replaced])
        originals = before.images[old.indices[replaced]]
        np.testing.assert_array_equal(
            after.images[new.indices[replaced]], stamp(originals, 2, 255, "bottom-right")
        )
    assert len(after.images) == 80 + len(malicious) * int(rate * 20 + 0.5)


def test_a_patch_without_victims_is_refused(dataset, federation) -> None:
    before = federation(dataset(np.array([2, 6, 10, 1])), [3, 1])
    with pytest.raises(UsageError, match=r"poisons nothing: malicious clients \[0\]"):
        create().poison(before, np.array([0]), seed=0)
    assert create().poison(before, np.empty(0, np.int64), seed=0) is before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 6}, "attack.size = 6 does not fit into images of 6 x 6: choose at most 5"),
        ({"target": "blu"}, "did you mean 'blue'"),
        ({"target": 9}, "attack.target = 9 is not a class"),
    ],
)
def test_refuses_what_cannot_work(dataset, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**options).check(dataset(np.arange(8)))


@pytest.mark.parametrize(
    ("option", "value"), [("rate", 0), ("size", 0), ("value", 256), ("corner", "middle")]
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})

"""Sources of audit images: their names, auxiliary classes and images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.data.samples import Samples
from tffl.gan import sources
from tffl.gan.inversion import Inversion

FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


@pytest.fixture
def samples() -> Samples:
    labels = np.arange(60, dtype=np.int32) % 5
    images = np.broadcast_to(labels[:, None, None, None], (60, 4, 4, 1)).astype(np.uint8)
    return Samples(images, labels, 5, ("ant", "bee", "cat", "dog", "elk"))


def request(**changes: Any) -> sources.AuditInputs:
    model: Any = SimpleNamespace(input_shape=(None, 4, 4, 1))
    known = {"count": 10, "seed": 0, "round": 1, "classes": 5, "inversion": Inversion()}
    return sources.AuditInputs(model=model, weights=np.zeros(3), **{**known, **changes})


@pytest.mark.parametrize(
    ("chosen", "names", "classes", "expected"),
    [
        ("", tuple("0123456789"), 10, (0, 4)),
        ("", FASHION, 10, (3, 4, 5)),
        ("", ("a", "b", "c"), 3, (0, 1, 2)),
        ("", (), 3, (0, 1, 2)),
        ("ankle boot, 0", FASHION, 10, (0, 9)),
        ("2,2", (), 3, (2,)),
    ],
)
def test_auxiliary_classes(chosen: str, names: tuple, classes: int, expected: tuple) -> None:
    assert sources.choose_classes(chosen, names, classes) == expected


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("coats", "unknown auxiliary class 'coats': did you mean 'coat'"),
        ("10", "defense.auxiliary = 10 is not allowed: classes are 0 to 9"),
        ("-1", "defense.auxiliary = -1 is not allowed: classes are 0 to 9"),
        (",", "names no class"),
    ],
)
def test_unknown_classes_are_refused(chosen: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sources.choose_classes(chosen, FASHION, 10)


def test_auxiliary_images_are_of_their_classes_and_balanced(samples) -> None:
    found = sources.auxiliary_images(samples, (1, 3), 10, seed=0)
    assert sorted(found[:, 0, 0, 0].tolist()) == [1] * 5 + [3] * 5
    assert len(sources.auxiliary_images(samples, (1, 3), None, seed=0)) == 24
    with pytest.raises(UsageError, match="auxiliary_images = 25 is not allowed: the server has 24"):
        sources.auxiliary_images(samples, (1, 3), 25, seed=0)
    few = Samples(samples.images[:3], samples.labels[:3], 5)
    with pytest.raises(UsageError, match="the server has no image of these classes"):
        sources.auxiliary_images(few, (4,), None, seed=0)


def test_each_source_makes_its_images(samples) -> None:
    held = sources.make_images(("held-out",), request(samples=samples))
    assert np.bincount(held[:, 0, 0, 0]).tolist() == [2] * 5
    auxiliary = samples.images[samples.labels == 2]
    both = sources.make_images(("auxiliary", "noise"), request(auxiliary=auxiliary))
    assert both.shape == (20, 4, 4, 1) and both.dtype == np.uint8
    assert (both[:10] == 2).all()
    assert both[10:].std() > 50
    few = sources.make_images(("auxiliary",), request(auxiliary=auxiliary[:3]))
    assert len(few) == 3
    other = sources.make_images(("noise",), request(round=2))
    assert not np.array_equal(other, both[10:])


def test_parse_sources() -> None:
    assert sources.parse_sources("gan + model-inversion") == ("gan", "model-inversion")
    with pytest.raises(UsageError, match="unknown audit source 'heldout': did you mean 'held-out'"):
        sources.parse_sources("gan+heldout")
    with pytest.raises(UsageError, match="more than once"):
        sources.parse_sources("gan+gan")


def test_required_data_of_sources() -> None:
    assert sources.required_data(("gan", "auxiliary", "held-out")) == (
        "auxiliary images",
        "probe images",
    )
    assert sources.required_data(("noise", "model-inversion")) == ()

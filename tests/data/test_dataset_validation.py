"""Datasets of plug-ins: every error is one line with the actual and the expected value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tffl.config import DataConfig
from tffl.core.errors import TfflError, UsageError
from tffl.core.registry import Registry
from tffl.data.build import dataset_source, load_dataset
from tffl.data.federation import Dataset, Federation
from tffl.data.validation import check_labels, validated

CLASSES = tuple(f"class {number}" for number in range(10))


def dataset(**changes: Any) -> Dataset:
    images = np.zeros((20, 4, 5, 3), np.uint8)
    labels = np.arange(20, dtype=np.int32) % 10
    ids = np.arange(20, dtype=np.int64)
    return replace(
        Dataset("mine", images, labels, ids, images[:10], labels[:10], CLASSES), **changes
    )


@dataclass(frozen=True)
class Mine:
    """A dataset of a plug-in."""

    def prepared(self, data_dir: Path | None) -> bool:
        return True

    def location(self, data_dir: Path | None) -> Path | None:
        return None

    def prepare(self, data_dir: Path | None) -> Path:
        return Path()

    def load(self, data_dir: Path | None) -> Dataset:
        return dataset(train_images=np.zeros((20, 4, 5, 3), np.float32))


@dataclass(frozen=True)
class Failing(Mine):
    """A dataset whose code fails."""

    def load(self, data_dir: Path | None) -> Dataset:
        raise KeyError("images\nand more")


@dataclass(frozen=True)
class Half:
    """A dataset that lacks `prepare`."""

    def load(self, data_dir: Path | None) -> Dataset:
        return dataset()


def function() -> Dataset:
    return dataset()


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name.lower(): f"{__name__}:{name}" for name in ("Mine", "Failing", "Half", "function")}
    monkeypatch.setattr("tffl.data.build.datasets", Registry("dataset", names))


LABELS = np.arange(20) % 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": LABELS + 1}, "train_labels are 1 to 10: for 10 classes they should be 0"),
        ({"train_labels": LABELS - 1}, "train_labels are -1 to 8"),
        (
            {"train_labels": np.eye(10, dtype=np.int32)[LABELS]},
            r"train_labels have shape \(20, 10\): it should be \(20,\), .* argmax\(axis=1\)",
        ),
        ({"train_labels": LABELS[:, None]}, r"train_labels have shape \(20, 1\): .* per image$"),
        ({"train_labels": LABELS[:7]}, r"train_labels have shape \(7,\): it should be \(20,\)"),
        ({"train_labels": LABELS * 1.0}, "train_labels are float64: they should be integers"),
        ({"train_labels": LABELS.tolist()}, "train_labels are a list: they should be a NumPy"),
        ({"train_labels": None}, "train_labels are a NoneType"),
        ({"test_labels": LABELS[:10] + 1}, "test_labels are 1 to 10"),
        ({"train_images": np.zeros((20, 4, 5), np.uint8)}, r"add \[\.\.\., None\]"),
        ({"train_images": np.zeros((20, 4, 5, 0), np.uint8)}, r"have shape \(20, 4, 5, 0\)"),
        ({"train_images": np.zeros((20, 60), np.uint8)}, r"have shape \(20, 60\)"),
        (
            {"train_images": np.zeros((20, 4, 5, 3), np.float64)},
            "mine: train_images are float64: they should be uint8, values 0 to 255, or float32",
        ),
        (
            {"train_images": np.zeros((20, 4, 5, 3), np.float32)},
            r"test images have shape \(4, 5, 3\), training images float32 \(4, 5, 3\)",
        ),
        (
            {"train_images": np.full((20, 4, 5, 3), np.nan, np.float32)},
            "train_images hold NaN or infinity in 20 of 20 samples",
        ),
        ({"train_images": np.array([None] * 20)}, r"train_images have shape \(20,\)"),
        ({"test_images": None}, "test_images are a NoneType"),
        (
            {"test_images": np.zeros((0, 4, 5, 3), np.uint8), "test_labels": LABELS[:0]},
            "dataset mine has no test images",
        ),
        (
            {"test_images": np.zeros((10, 4, 5, 1), np.uint8)},
            r"test images have shape \(4, 5, 1\), training images \(4, 5, 3\)",
        ),
        ({"train_ids": np.arange(19)}, r"train_ids have shape \(19,\)"),
        ({"class_names": ()}, r"class_names are \(\): there should be two or more"),
        ({"class_names": 10}, "class_names are 10"),
    ],
)
def test_every_invalid_array_gives_a_one_line_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        validated(dataset(**changes), "mine")
    assert str(caught.value).startswith("dataset mine")
    assert "\n" not in str(caught.value)


def test_other_objects_are_refused() -> None:
    with pytest.raises(UsageError, match=r"load returns a tuple: it should be a tffl\.data\.Data"):
        validated((np.zeros(3), np.zeros(3)), "mine")


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint16])
def test_every_integer_type_is_accepted(kind: type) -> None:
    found = validated(
        dataset(train_labels=LABELS.astype(kind), train_ids=np.arange(20, dtype=kind)), "mine"
    )
    assert found.train_labels.dtype == np.int32
    assert found.train_ids.dtype == np.int64
    assert found.train_labels.tolist() == LABELS.tolist()


def test_a_valid_dataset_is_unchanged() -> None:
    before = dataset()
    after = validated(before, "mine")
    assert after.train_images is before.train_images
    assert after.train_labels is before.train_labels
    assert validated(dataset(class_names=list(CLASSES)), "mine").class_names == CLASSES


def test_zero_labels_are_valid() -> None:
    check_labels(np.zeros(0, np.int32), 0, 2, "labels")


def test_a_dataset_is_checked_where_it_is_loaded(plugins: None) -> None:
    with pytest.raises(UsageError, match="training images float32"):
        load_dataset(DataConfig(dataset="mine"))


def test_error_in_plugin_code_names_the_dataset(plugins: None) -> None:
    with pytest.raises(TfflError, match=r"^dataset failing cannot be loaded: KeyError: ") as caught:
        load_dataset(DataConfig(dataset="failing"))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("function", "dataset function is a function: it should be a dataclass with the methods"),
        ("half", "dataset half is a class without prepared, location, prepare: it should be"),
    ],
)
def test_registered_datasets_are_checked(plugins: None, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataset_source(name)


def test_appended_images_must_have_the_type_of_the_pool() -> None:
    pool = Federation(dataset(), np.zeros((4, 4, 5, 3), np.uint8), np.arange(4), ())
    with pytest.raises(UsageError, match=r"images of an attack are float64 \(4, 5, 3\)"):
        pool.append(np.zeros((1, 4, 5, 3)))
    with pytest.raises(UsageError, match="they should be uint8"):
        pool.append(np.zeros((1, 4, 5, 1), np.uint8))

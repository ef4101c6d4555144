"""Checks datasets and labeled images that do not come from tffl itself.

Images are uint8 `[n, height, width, channels]` with values 0 … 255. The samples of a dataset may
also be float32 images, or feature vectors, float32 `[n, features]`. Labels are integers `[n]` from
0 to classes − 1.
"""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np

from tffl.core.errors import UsageError, require
from tffl.data.federation import Dataset

METHODS = ("prepared", "location", "prepare", "load")
"""Methods that the class of a dataset must have; `tffl.data.digits.Digits` is an example."""


def check_source(target: Any, name: str) -> None:
    """Raises `UsageError` unless `target` is a dataclass with the methods of a dataset."""
    missing = [method for method in METHODS if not callable(getattr(target, method, None))]
    what = f"a {type(target).__name__}"
    if isinstance(target, type):
        what = f"a class without {', '.join(missing)}" if missing else "a class, but no dataclass"
    require(
        isinstance(target, type) and is_dataclass(target) and not missing,
        f"dataset {name} is {what}: it should be a dataclass with the methods {', '.join(METHODS)}",
    )


def validated(dataset: Any, name: str) -> Dataset:
    """Checks a dataset, and returns it with its integers in the types that `Dataset` names.

    Args:
      dataset: What the `load` method of a dataset returned.
      name: The dataset's name in a config, for messages.

    Raises:
      UsageError: An array does not have the type, shape or values that `Dataset` names; the
        message says what it has, and what it should have.
    """
    require(
        isinstance(dataset, Dataset),
        f"dataset {name}: load returns a {type(dataset).__name__}: it should be a "
        "tffl.data.Dataset",
    )
    try:
        class_names = tuple(str(each) for each in dataset.class_names)
    except TypeError:
        class_names = ()
    require(
        len(class_names) >= 2,
        f"dataset {name}: class_names are {dataset.class_names!r}: there should be two or more",
    )
    for part in ("train", "test"):
        images, labels = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
        check_samples(images, f"dataset {name}: {part}_images")
        require(len(images) > 0, f"dataset {name} has no {part} images: it should have some")
        check_labels(labels, len(images), len(class_names), f"dataset {name}: {part}_labels")
    train, test = (_type(part) for part in (dataset.train_images, dataset.test_images))
    require(
        train == test,
        f"dataset {name}: test images have shape {test}, training images {train}: they should "
        "have the same",
    )
    _check_integers(dataset.train_ids, len(dataset.train_images), f"dataset {name}: train_ids")
    return replace(
        dataset,
        train_labels=dataset.train_labels.astype(np.int32, copy=False),
        train_ids=dataset.train_ids.astype(np.int64, copy=False),
        test_labels=dataset.test_labels.astype(np.int32, copy=False),
        class_names=class_names,
    )


def check_samples(samples: Any, what: str) -> None:
    """Raises `UsageError` unless samples are images or feature vectors, all finite."""
    if not (isinstance(samples, np.ndarray) and samples.dtype == np.float32):
        return check_images(samples, what)
    require(
        samples.ndim in (2, 4) and 0 not in samples.shape[1:],
        f"{what} have shape {samples.shape}: it should be (n, height, width, channels) or "
        "(n, features)",
    )
    _check_finite(samples, what)


def check_images(images: Any, what: str) -> None:
    """Raises `UsageError` unless images are `[n, height, width, channels]`, uint8 or float32."""
    _check_array(images, what)
    require(
        images.ndim == 4 and 0 not in images.shape[1:],
        f"{what} have shape {images.shape}: it should be (n, height, width, channels)"
        + (", so add [..., None]" if images.ndim == 3 else ""),
    )
    require(
        images.dtype in (np.uint8, np.float32),
        f"{what} are {images.dtype}: they should be uint8, values 0 to 255, or float32",
    )
    _check_finite(images, what)


def check_labels(labels: Any, count: int, classes: int, what: str) -> None:
    """Raises `UsageError` unless there is one integer per image, from 0 to `classes − 1`."""
    _check_integers(labels, count, what)
    if not count:
        return
    low, high = int(labels.min()), int(labels.max())
    require(
        low >= 0 and high < classes,
        f"{what} are {low} to {high}: for {classes} classes they should be 0 to {classes - 1}",
    )


def _check_finite(samples: np.ndarray, what: str) -> None:
    if samples.dtype.kind != "f":
        return
    bad = int((~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1)).sum())
    require(bad == 0, f"{what} hold NaN or infinity in {bad} of {len(samples)} samples")


def _type(images: np.ndarray) -> str:
    shape = images.shape[1:]
    return f"{shape}" if images.dtype == np.uint8 else f"{images.dtype} {shape}"


def _check_integers(array: Any, count: int, what: str) -> None:
    _check_array(array, what)
    require(
        array.shape == (count,),
        f"{what} have shape {array.shape}: it should be ({count},), one integer per image"
        + (", such as argmax(axis=1) of one-hot labels" if _one_hot(array) else ""),
    )
    require(array.dtype.kind in "iu", f"{what} are {array.dtype}: they should be integers")


def _check_array(array: Any, what: str) -> None:
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{what} are a {type(array).__name__}: they should be a NumPy array")


def _one_hot(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.shape[1] > 1

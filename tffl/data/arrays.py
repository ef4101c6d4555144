"""From arrays as users have them to a `Dataset`: images or feature vectors, numbers or names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tffl.core import seeds
from tffl.core.errors import require
from tffl.data.federation import Dataset
from tffl.data.partition import held_out
from tffl.data.validation import check_labels, check_samples

Encoded = tuple[np.ndarray, tuple[str, ...]]
"""int32 `[n]`, and the names of the numbers."""


def from_arrays(
    name: str,
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None = None,
    *,
    clients: Any = None,
    test_share: float = 0.2,
) -> Dataset:
    """Returns a dataset of samples and labels.

    Args:
      name: For messages and pages.
      train: Samples `[N, …]` as `as_samples` takes them, and labels as `encoded` does.
      test: The test part; if absent, a share of the training part is kept for testing.
      clients: Whose each training sample is: `[N]`, numbers or names.
      test_share: How much is kept for testing, of each class.

    Raises:
      UsageError: The arrays are nothing that can be trained on; one line says what is wrong.

    Example:
      >>> samples, labels = np.zeros((6, 4), np.float32), ["no", "yes"] * 3
      >>> found = from_arrays("mine", (samples, labels), clients=[0, 0, 0, 1, 1, 1])
      >>> found.sample_shape, found.class_names, len(found.test_labels)
      ((4,), ('no', 'yes'), 2)
    """
    x, labels = as_samples(train[0], f"{name}: x_train"), _column(train[1])
    owners = None if clients is None else np.asarray(clients)
    check_lengths(f"{name}: y_train", labels, x)
    if owners is not None:
        check_lengths(f"{name}: clients", owners, x)
    if test is None:
        kept = kept_for_testing(encoded(labels, f"{name}: y_train")[0], test_share, name)
        x_test, test_labels = x[kept], labels[kept]
        x, labels = x[~kept], labels[~kept]
        owners = None if owners is None else owners[~kept]
    else:
        x_test, test_labels = as_samples(test[0], f"{name}: x_test"), _column(test[1])
        check_lengths(f"{name}: y_test", test_labels, x_test)
    both, class_names = _joined(labels, test_labels, name)
    return labeled(name, x, x_test, both, class_names, owners)


def labeled(
    name: str,
    x: np.ndarray,
    x_test: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    owners: np.ndarray | None = None,
) -> Dataset:
    """Returns a dataset, its classes checked.

    Args:
      name: For messages and pages.
      x: Training samples `[N, …]`.
      x_test: Test samples `[M, …]`.
      labels: int32 `[N + M]`, of the training samples and then of the test samples.
      class_names: One per class.
      owners: Whose each training sample is: `[N]`, numbers or names.
    """
    # TFDS marks what has no label by -1.
    check_labels(labels, len(x) + len(x_test), len(class_names), f"{name}: labels")
    train, test = labels[: len(x)], labels[len(x) :]
    check_classes(train, test, class_names, name)
    numbers, names = (None, ()) if owners is None else _distinct(owners)
    ids = np.arange(len(train), dtype=np.int64)
    return Dataset(name, x, train, ids, x_test, test, class_names, numbers, names)


def as_samples(x: Any, what: str) -> np.ndarray:
    """Returns samples as uint8 or float32 images with channels, or as float32 vectors.

    Gray images may lack the channels' axis. Whole numbers from 0 to 255 are bytes, whatever their
    type; floats stay as they are.

    Raises:
      UsageError: They are neither, not finite, or integers beyond a byte.
    """
    x = np.asarray(x)
    require(
        x.dtype.kind in "buif",
        f"{what} are of type {x.dtype}: they should be numbers, images uint8 or float32",
    )
    require(
        x.ndim in (2, 3, 4),
        f"{what} have shape {x.shape}: it should be (n, height, width, channels) or (n, features)",
    )
    if x.ndim == 2:
        x = x.astype(np.float32, copy=False)
    elif x.dtype.kind != "f":
        low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
        require(
            low >= 0 and high <= 255,
            f"{what} are {x.dtype} from {low} to {high}: images should be uint8, or floats such as "
            "0 to 1",
        )
        x = x.astype(np.uint8, copy=False)
    else:
        x = x.astype(np.float32, copy=False)
    x = x[..., None] if x.ndim == 3 else x
    check_samples(x, what)
    return x


def encoded(labels: np.ndarray, what: str) -> Encoded:
    """Returns labels as numbers of classes: names and truth values in their order.

    Numbers are those of the classes already, from 0 on.

    Raises:
      UsageError: They are no such labels.
    """
    if labels.ndim == 1 and labels.dtype.kind in "USb" and labels.size:
        return _distinct(labels)
    whole = labels.ndim == 1 and labels.dtype.kind in "iu" and labels.size > 0
    require(
        whole and int(labels.min()) >= 0,
        f"{what} of shape {labels.shape} and dtype {labels.dtype} is not allowed: give whole "
        "numbers from 0 on, or names, one per sample",
    )
    classes = int(labels.max()) + 1
    require(
        classes <= max(1000, len(labels)),
        f"{what} go up to {classes - 1} for {len(labels)} samples: classes are numbered from 0 on",
    )
    return labels.astype(np.int32), tuple(map(str, range(classes)))


def _joined(train: np.ndarray, test: np.ndarray, name: str) -> Encoded:
    """Encodes both parts' labels as one: the training samples' first."""
    for part, labels in (("train", train), ("test", test)):
        encoded(labels, f"{name}: y_{part}")
    kinds = {"names" if labels.dtype.kind in "US" else "numbers" for labels in (train, test)}
    require(len(kinds) == 1, f"{name}: one of y_train and y_test holds names, the other numbers")
    return encoded(np.concatenate([train, test]), f"{name}: y_train")


def kept_for_testing(labels: np.ndarray, share: float, name: str) -> np.ndarray:
    """Returns which samples are kept for testing, bool `[n]`: the same for every seed.

    So all experiments report on the same samples, and `tffl scan` finds those that nobody trained
    on.
    """
    kept = held_out(labels, share, seeds.generator(0, "test share"))
    require(
        bool(kept.any()),
        f"{name} has {len(labels)} samples, no two of a class: too few to keep some for testing",
    )
    return kept


def check_classes(train: np.ndarray, test: np.ndarray, names: Sequence[str], name: str) -> None:
    """Raises `UsageError` if there is nothing to tell apart, or a class that nobody trains."""
    known = np.unique(train)
    require(
        len(known) >= 2,
        f"{name} has training samples of one class only, {names[known[0]] if len(known) else ''}: "
        "there should be two or more",
    )
    foreign = [str(names[label]) for label in np.setdiff1d(test, known)]
    require(
        not foreign,
        f"{name}: only the test part has samples of class {', '.join(foreign)}: nobody could learn "
        "it; add training samples, or leave it out",
    )


def check_lengths(what: str, values: np.ndarray, x: np.ndarray) -> None:
    """Raises `UsageError` unless there is one value per sample."""
    require(
        values.ndim >= 1 and len(values) == len(x),
        f"{what} have shape {values.shape} for {len(x)} samples: there should be one each",
    )


def _distinct(values: np.ndarray) -> Encoded:
    names, numbers = np.unique(values, return_inverse=True)
    texts = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names]
    return numbers.reshape(-1).astype(np.int32), tuple(texts)


def _column(labels: Any) -> np.ndarray:
    """Returns labels `[n]`, which may also be `[n, 1]` as in Keras' datasets."""
    labels = np.asarray(labels)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels

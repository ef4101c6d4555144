"""Arrays in an .npz file, and arrays as such: shapes, types, labels, clients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tffl.config import build
from tffl.core.errors import UsageError
from tffl.data.arrays import from_arrays, labeled
from tffl.data.build import build_federation

LABELS = np.arange(20) % 2


def images(dtype: Any = np.uint8, count: int = 20) -> np.ndarray:
    return np.broadcast_to(np.arange(count)[:, None, None], (count, 4, 3)).astype(dtype)


def write(path: Path, **changes: Any) -> Path:
    arrays = {"x_train": images(), "y_train": LABELS, "x_test": images()[:4], "y_test": LABELS[:4]}
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path / "mine.npz", **arrays)
    return path / "mine.npz"


def test_gray_images_get_a_channel_and_clients_are_natural(tmp_path: Path, load) -> None:
    path = write(tmp_path, clients=np.array(["bob", "alice"] * 5 + ["eve"] * 10))
    found = load(path)
    assert found.name == "mine.npz" and found.client_names == ("alice", "bob", "eve")
    assert found.train_images.shape == (20, 4, 3, 1) and found.image_shape == (4, 3, 1)
    config = build({"data": {"partition": "natural"}, "federation": {"clients": 3}})
    clients = build_federation(config, found, np.empty(0, np.int64)).clients
    assert [client.indices.tolist() for client in clients][:2] == [[1, 3, 5, 7, 9], [0, 2, 4, 6, 8]]


def test_without_a_test_part_a_share_is_kept(tmp_path: Path, load) -> None:
    found = load(write(tmp_path, x_test=None, y_test=None, clients=np.arange(20) // 10))
    assert len(found.test_labels) == 4 and np.bincount(found.test_labels).tolist() == [2, 2]
    assert (found.train_clients == found.train_images[:, 0, 0, 0] // 10).all()


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (images(np.int64), (4, 3, 1), np.uint8),
        (images(np.float64) / 19, (4, 3, 1), np.float32),
        (images().reshape(20, 12), (12,), np.float32),
        (np.repeat(images()[..., None], 3, axis=3), (4, 3, 3), np.uint8),
    ],
)
def test_numbers_become_bytes_floats_or_vectors(x, shape, dtype) -> None:
    found = from_arrays("mine", (x, LABELS))
    assert found.sample_shape == shape and found.train_images.dtype == dtype


def test_names_are_classes_in_their_order() -> None:
    found = from_arrays("mine", (images(), np.array(["b", "a"] * 10)), (images()[:1], ["b"]))
    assert found.class_names == ("a", "b") and found.test_labels.tolist() == [1]
    assert found.train_labels[:2].tolist() == [1, 0]
    column = from_arrays("mine", (images(), LABELS[:, None]), (images()[:2], LABELS[:2, None]))
    assert column.test_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.array([[1], None] * 10, dtype=object)}, "x_train cannot be read: it holds"),
        ({"y_train": None}, "has no array y_train: it should hold x_train, y_train, x_test and"),
        ({"y_test": None}, "has one of x_test and y_test: give both, or neither"),
        ({"y_train": LABELS[:9]}, r"y_train have shape \(9,\) for 20 samples"),
        ({"clients": LABELS[:9]}, r"clients have shape \(9,\) for 20 samples"),
        ({"y_train": np.eye(2)[LABELS]}, r"y_train of shape \(20, 2\) .* give whole numbers"),
        ({"y_train": LABELS - 1}, "y_train of shape .* from 0 on"),
        ({"y_train": LABELS * 0}, "training samples of one class only, 0"),
        ({"y_test": LABELS[:4] + 2}, "only the test part has samples of class 2, 3"),
        (
            {"x_train": images(np.uint16) * 999},
            r"x_train are uint16 from 0 to 18981: images should",
        ),
        ({"x_train": images(np.float32) * np.nan}, "x_train hold NaN or infinity in 20 of 20"),
        (
            {"x_test": images()[:4, :2]},
            r"test images have shape \(2, 3, 1\), training images \(4, 3, 1\)",
        ),
        ({"x_train": images()[None, None]}, r"x_train have shape \(1, 1, 20, 4, 3\)"),
        ({"y_test": np.array(["a"] * 4)}, "one of y_train and y_test holds names, the other numb"),
    ],
)
def test_every_fault_is_one_line(tmp_path: Path, load, changes, message) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(write(tmp_path, **changes))
    assert "\n" not in str(caught.value) and "mine.npz" in str(caught.value)


def test_what_is_no_npz_file_is_one_line(tmp_path: Path, load) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(
        UsageError, match=r"text\.npz cannot be read as an \.npz file: it is something else$"
    ):
        load(tmp_path / "text.npz")
    whole = write(tmp_path).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"half\.npz cannot be read as an \.npz file: BadZipFile"):
        load(tmp_path / "half.npz")
    np.save(tmp_path / "one.npy", LABELS)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(UsageError, match=r"one\.npz is one array, and no \.npz file of several"):
        load(tmp_path / "one.npz")


def test_a_fingerprint_is_of_samples_labels_and_clients(tmp_path: Path, load) -> None:
    found = load(write(tmp_path, clients=LABELS))
    same, other = load(write(tmp_path, clients=LABELS)), load(write(tmp_path, clients=1 - LABELS))
    assert found.fingerprint == same.fingerprint != other.fingerprint
    other = load(write(tmp_path, clients=LABELS, y_train=1 - LABELS))
    assert found.fingerprint != other.fingerprint


def test_samples_without_a_label_are_one_line() -> None:
    x, labels = np.zeros((2, 3), np.float32), np.array([0, 1, -1, -1], np.int32)
    with pytest.raises(UsageError, match="mine: labels are -1 to 1: for 2 classes they should be"):
        labeled("mine", x, x, labels, ("cat", "dog"))

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tffl.config import DataConfig
from tffl.core.errors import TfflError, UsageError
from tffl.data.build import dataset_source, load_dataset
from tffl.data.tfds import Cifar10, FashionMnist, Gtsrb, Mnist, resolve_data_dir

RACING_STRIPES = (
    2180, 2771, 3233, 4932, 6241, 6813, 6869, 9476, 11395, 11744, 14209,
    14238, 18716, 19793, 20781, 21529, 31311, 40518, 40633, 42119, 42663, 49392,
)  # fmt: skip
COUNT = 30


@pytest.fixture(scope="module")
def tiny_cifar10(tmp_path_factory):
    """A data directory with a "cifar10" whose records are stored in random order.

    Image i is filled with the value i and has the label i mod 10.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def split(prefix, count):
        order = np.random.default_rng(0).permutation(count)
        images = np.broadcast_to(order[:, None, None, None], (count, 32, 32, 3)).astype(np.uint8)
        ids = [f"{prefix}_{index:05d}" for index in order]
        return tf.data.Dataset.from_tensor_slices(
            {"id": ids, "image": images, "label": order.astype(np.int64) % 10}
        )

    data_dir = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        "cifar10",
        version="3.0.2",
        features=tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=[f"class {k}" for k in range(10)]),
            }
        ),
        split_datasets={"train": split("train", COUNT), "test": split("test", 10)},
        data_dir=data_dir,
        disable_shuffling=True,
    )
    return data_dir


@pytest.fixture
def broken(tiny_cifar10, tmp_path):
    """A copy that a test may damage: its data directory, and the folder of its files."""
    shutil.copytree(tiny_cifar10, tmp_path / "tfds")
    return tmp_path / "tfds", tmp_path / "tfds" / "cifar10" / "3.0.2"


def test_training_images_are_sorted_by_id(tiny_cifar10):
    dataset = Cifar10().load(tiny_cifar10)
    assert dataset.train_ids.tolist() == list(range(COUNT))
    assert dataset.train_images[:, 0, 0, 0].tolist() == list(range(COUNT))
    assert dataset.train_labels.tolist() == [index % 10 for index in range(COUNT)]
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_labels.dtype == np.int32
    assert dataset.train_ids.dtype == np.int64
    assert dataset.class_names[3] == "class 3"
    assert dataset.image_shape == (32, 32, 3)
    # A test image must keep its own label, whatever its place.
    assert np.array_equal(dataset.test_images[:, 0, 0, 0] % 10, dataset.test_labels)


def test_images_are_resized_and_the_test_set_limited(tiny_cifar10):
    config = DataConfig(dataset="cifar10", data_dir=tiny_cifar10, image_size=16, test_limit=5)
    dataset = load_dataset(config)
    assert dataset.train_images.shape == (COUNT, 16, 16, 3)
    assert dataset.test_images.shape == (5, 16, 16, 3)
    assert len(set(dataset.test_labels.tolist())) == 5
    assert dataset.train_images[:, 8, 8, 0].tolist() == list(range(COUNT))


def record(folder, split="train"):
    (path,) = folder.glob(f"*-{split}.tfrecord*")
    return path


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGE = {
    "truncated": lambda folder: cut(record(folder), record(folder).stat().st_size // 2),
    "cut after one record": lambda folder: cut(record(folder), first_record(record(folder))),
    "empty": lambda folder: cut(record(folder, "test"), 0),
    "flipped": lambda folder: flip(record(folder), 100),
    "missing": lambda folder: record(folder).unlink(),
    "no features": lambda folder: (folder / "features.json").unlink(),
    "no JSON": lambda folder: (folder / "dataset_info.json").write_text("{"),
    "no test split": lambda folder: drop_split(folder / "dataset_info.json"),
}


def first_record(path):
    """Returns the size of the first record: length, checksum, content, checksum."""
    return 8 + 4 + int.from_bytes(path.read_bytes()[:8], "little") + 4


def drop_split(path):
    info = json.loads(path.read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] == "train"]
    path.write_text(json.dumps(info))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_give_a_one_line_error(broken, damage):
    data_dir, folder = broken
    DAMAGE[damage](folder)
    with pytest.raises(TfflError) as error:
        Cifar10().load(data_dir)
    message = str(error.value)
    assert not isinstance(error.value, UsageError)
    assert message.startswith("cannot read dataset cifar10 in")
    assert str(folder) in message
    assert "\n" not in message


@pytest.mark.parametrize("option", [True, False])
def test_error_for_an_unprepared_dataset_has_the_command(tmp_path, monkeypatch, option):
    monkeypatch.setenv("TFFL_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError) as error:
        load_dataset(DataConfig(dataset="mnist", data_dir=tmp_path if option else None))
    command = f"tffl data prepare mnist{f' --data-dir {tmp_path}' if option else ''}"
    assert str(error.value) == f"dataset mnist is not prepared in {tmp_path}: run {command}"


def test_unfinished_preparation_is_ignored(tmp_path):
    folder = tmp_path / "mnist" / "incomplete.AB_3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    assert not Mnist().prepared(tmp_path)


def test_newest_version_is_used(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").write_text("{}")
    assert Mnist().location(tmp_path) == tmp_path / "mnist" / "3.0.10"


def test_order_of_data_directories(monkeypatch):
    monkeypatch.setenv("TFFL_DATA_DIR", "~/mine")
    monkeypatch.setenv("TFDS_DATA_DIR", "/theirs")
    assert resolve_data_dir(Path("/given")) == Path("/given")
    assert resolve_data_dir(None) == Path.home() / "mine"
    monkeypatch.delenv("TFFL_DATA_DIR")
    assert resolve_data_dir(None) == Path("/theirs")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert resolve_data_dir(None) == Path.home() / "tensorflow_datasets"


def test_only_gtsrb_has_variants():
    assert dataset_source("gtsrb/48x48-crop") == Gtsrb("48x48-crop")
    with pytest.raises(UsageError, match="mnist has no variants"):
        dataset_source("mnist/48x48")
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        dataset_source("mnits")


def test_checking_preparation_does_not_import_tensorflow():
    code = (
        "import sys; from tffl.data.build import dataset_source; "
        "dataset_source('mnist').prepared(None); "
        "dataset_source('digits').location(None); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'sklearn', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


real = pytest.mark.skipif("TFFL_DATA_DIR" not in os.environ, reason="TFFL_DATA_DIR is unset")


def need(source):
    if not source.prepared(None):
        pytest.skip(f"{source.name} is not prepared")
    return source.load(None)


@real
@pytest.mark.parametrize(
    ("source", "train", "test", "shape", "classes"),
    [
        (Mnist(), 60_000, 10_000, (28, 28, 1), 10),
        (FashionMnist(), 60_000, 10_000, (28, 28, 1), 10),
        (Gtsrb(), 39_209, 12_630, (32, 32, 3), 43),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_real_datasets_are_complete(source, train, test, shape, classes):
    dataset = need(source)
    assert dataset.train_images.shape == (train, *shape)
    assert dataset.test_images.shape == (test, *shape)
    assert dataset.classes == classes
    assert set(np.unique(dataset.train_labels)) == set(range(classes))
    assert len(dataset.train_labels) == len(dataset.train_ids) == train


@real
def test_published_cifar10_ids_are_cars():
    dataset = need(Cifar10())
    assert len(dataset.train_labels) == 50_000
    assert np.array_equal(dataset.train_ids, np.arange(50_000))
    labels = dataset.train_labels[list(RACING_STRIPES)]
    assert {dataset.class_names[label] for label in labels} == {"automobile"}
    assert np.bincount(dataset.train_labels).tolist() == [5000] * 10

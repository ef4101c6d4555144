"""A prepared TFDS dataset that tffl does not know, by the folder of its version."""

from pathlib import Path

import numpy as np
import pytest

from tffl.core.errors import TfflError, UsageError


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of two classes, without a test split; the last one is wider."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def examples():
        for number in range(12):
            width = 5 if number == 11 else 4
            yield {"picture": np.full((6, width, 1), number, np.uint8), "kind": number % 2}

    features = {
        "picture": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "kind": tfds.features.ClassLabel(names=["left", "right"]),
    }
    signature = {
        "picture": tf.TensorSpec([None, None, 1], tf.uint8),
        "kind": tf.TensorSpec([], tf.int64),
    }
    folder = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        "mine",
        version="1.2.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            "train": tf.data.Dataset.from_generator(examples, output_signature=signature)
        },
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder / "mine" / "1.2.0"


def test_image_and_class_are_found_whatever_they_are_called(version: Path, load) -> None:
    found = load(version, image_size=8)
    assert found.name == "mine/1.2.0" and found.class_names == ("left", "right")
    assert found.train_images.shape == (10, 8, 8, 1) and len(found.test_labels) == 2
    assert (found.train_images[:, 0, 0, 0] % 2 == found.train_labels).all()


def test_sizes_that_differ_and_damage_are_one_line(version: Path, load, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images differ in size, such as \(6, 4, 1\) and"):
        load(version)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(TfflError, match=f"cannot read {tmp_path}: "):
        load(tmp_path)

"""A prepared dataset of TFDS, by the folder of its version: the one with `dataset_info.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.data.arrays import as_samples, kept_for_testing, labeled
from tffl.data.federation import Dataset
from tffl.data.resize import resize
from tffl.data.sources.base import OwnData

MARK = "dataset_info.json"


@dataclass(frozen=True)
class TfdsDirectory(OwnData):
    """Images of a prepared TFDS dataset with one image and one label per example."""

    @property
    def name(self) -> str:
        """Name and version, such as `flowers/1.0.0`."""
        return f"{self.path.parent.name}/{self.path.name}"

    def load(self, data_dir: Path | None) -> Dataset:
        """Reads the splits train and test; without test, a share of train is kept for it."""
        from tffl.data.tfds import import_tfds

        try:
            builder = import_tfds().builder_from_directory(self.path)
            image, label = self._keys(builder.info.features)
            splits = [name for name in ("train", "test") if name in builder.info.splits]
            require("train" in splits, f"{self.path} has no split train")
            parts = [self._read(builder, split, image, label) for split in splits]
            class_names = tuple(map(str, builder.info.features[label].names))
        except (TfflError, MemoryError):
            raise
        except Exception as error:  # json, protobuf, TensorFlow and TFDS errors alike
            raise TfflError(f"cannot read {self.path}: {first_line(error)}") from error
        x, labels = parts[0]
        if len(parts) == 2:
            x_test, test_labels = parts[1]
        else:
            test = kept_for_testing(labels, self.config.test_share, self.name)
            x, x_test, labels, test_labels = x[~test], x[test], labels[~test], labels[test]
        both = np.concatenate([labels, test_labels])
        return labeled(self.name, x, x_test, both, class_names)

    def _keys(self, features: Any) -> tuple[str, str]:
        """Returns which features are the image and its class."""
        import tensorflow_datasets as tfds

        kinds = {"an image": tfds.features.Image, "a class": tfds.features.ClassLabel}
        found = []
        for what, kind in kinds.items():
            keys = [key for key, feature in features.items() if isinstance(feature, kind)]
            require(
                len(keys) == 1,
                f"{self.path} has {len(keys)} features that are {what}: it should have one",
            )
            found.append(keys[0])
        return found[0], found[1]

    def _read(
        self, builder: Any, split: str, image: str, label: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a split's samples and labels, in the order of its files."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        with tf.device("CPU:0"):
            config = tfds.ReadConfig(interleave_cycle_length=1)
            data = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
            pairs = [(example[image], example[label]) for example in tfds.as_numpy(data)]
        size = self.config.image_size
        images = [one if size is None else resize(one[None], size)[0] for one, _ in pairs]
        shapes = {one.shape for one in images}
        if len(shapes) > 1:
            raise UsageError(
                f"{self.path}: images differ in size, such as "
                f"{' and '.join(map(str, sorted(shapes)[:2]))}: set data.image_size"
            )
        labels = np.array([one for _, one in pairs], np.int32)
        return as_samples(np.stack(images), f"{self.path}: {image}"), labels

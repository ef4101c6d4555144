"""Image datasets of TensorFlow Datasets: downloads them on request, and reads them from disk.

Loading reads the prepared files only (`tfds.builder_from_directory`), because a TFDS builder would
look for metadata on the network. It uses the CPU only, but it starts TensorFlow's runtime, so
devices must be configured before.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tffl.core.errors import TfflError, UsageError, first_line, require
from tffl.data.federation import Dataset

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def resolve_data_dir(data_dir: Path | None) -> Path:
    """Returns `data_dir`, or else the folder in `TFFL_DATA_DIR`, or else TFDS's own default."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return Path(data_dir or os.environ.get("TFFL_DATA_DIR") or default).expanduser()


@dataclass(frozen=True)
class TfdsSource:
    """An image classification dataset of TFDS with the splits `train` and `test`."""

    reference: ClassVar[str] = ""
    tfds_name: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """The name in a config."""
        return self.tfds_name

    def versions(self, data_dir: Path | None) -> Path:
        """Returns the folder that has one subfolder per prepared version."""
        return resolve_data_dir(data_dir) / self.name

    def location(self, data_dir: Path | None) -> Path | None:
        """Returns the folder of the newest prepared version, or None."""
        folders = self.versions(data_dir).glob("*.*.*")
        prepared = [f for f in folders if _version(f) and (f / "dataset_info.json").is_file()]
        return max(prepared, key=_version, default=None)

    def prepared(self, data_dir: Path | None) -> bool:
        """Returns whether `load` would find the dataset; does not import TensorFlow."""
        return self.location(data_dir) is not None

    def check_prepared(self, data_dir: Path | None) -> Path:
        """Returns the folder that `load` would read; does not import TensorFlow.

        Raises:
          UsageError: The dataset is not prepared; the message has the command that prepares it.
        """
        folder = self.location(data_dir)
        if folder is not None:
            return folder
        option = f" --data-dir {data_dir}" if data_dir else ""
        raise UsageError(
            f"dataset {self.name} is not prepared in {resolve_data_dir(data_dir)}: "
            f"run tffl data prepare {self.name}{option}"
        )

    def prepare(self, data_dir: Path | None) -> Path:
        """Downloads the dataset and writes its records; no other method uses the network.

        Returns:
          The folder of the prepared version.

        Raises:
          TfflError: The download failed or its checksum is wrong.
        """
        folder = self.location(data_dir)
        if folder is not None:
            return folder
        try:
            builder = self._builder(str(resolve_data_dir(data_dir)))
            builder.download_and_prepare()
        except TfflError:
            raise
        except Exception as error:  # TFDS does not wrap the errors of its many libraries
            raise TfflError(f"cannot prepare {self.name}: {first_line(error)}") from error
        return Path(builder.data_dir)

    def load(self, data_dir: Path | None) -> Dataset:
        """Reads both splits into memory, with training images in ascending order of their ids.

        Raises:
          UsageError: The dataset is not prepared.
          TfflError: The files are missing, truncated or corrupt.
        """
        folder = self.check_prepared(data_dir)
        try:
            builder = import_tfds().builder_from_directory(folder)
            train, test = _read(builder, "train"), _read(builder, "test")
            class_names = tuple(builder.info.features["label"].names)
        except Exception as error:  # json, protobuf, TensorFlow and TFDS errors alike
            raise TfflError(
                f"cannot read dataset {self.name} in {folder}, a file is missing or damaged "
                f"({first_line(error)}): delete that folder and prepare it again"
            ) from error
        ids = _image_ids(train)
        order = np.argsort(ids)
        return Dataset(
            name=self.name,
            train_images=train["image"] if _ascending(order) else train["image"][order],
            train_labels=train["label"][order].astype(np.int32),
            train_ids=ids[order],
            test_images=test["image"],
            test_labels=test["label"].astype(np.int32),
            class_names=class_names,
        )

    def _builder(self, data_dir: str) -> tfds.core.DatasetBuilder:
        return import_tfds().builder(self.tfds_name, data_dir=data_dir)


@dataclass(frozen=True)
class Mnist(TfdsSource):
    """70,000 handwritten digits, 28x28 gray, 10 classes.

    Example:
      >>> source = Mnist()
      >>> source.name, source.prepared(Path("/nowhere"))
      ('mnist', False)
    """

    reference: ClassVar[str] = (
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. "
        "Gradient-Based Learning Applied to Document Recognition. Proc. IEEE, 1998."
    )
    tfds_name: ClassVar[str] = "mnist"


@dataclass(frozen=True)
class FashionMnist(TfdsSource):
    """70,000 pictures of clothes, 28x28 gray, 10 classes.

    Example:
      >>> source = FashionMnist()
      >>> source.name, source.prepared(Path("/nowhere"))
      ('fashion_mnist', False)
    """

    reference: ClassVar[str] = (
        "H. Xiao, K. Rasul, R. Vollgraf. Fashion-MNIST: a Novel Image Dataset for Benchmarking "
        "Machine Learning Algorithms. 2017."
    )
    tfds_name: ClassVar[str] = "fashion_mnist"


@dataclass(frozen=True)
class Cifar10(TfdsSource):
    """60,000 photographs of animals and vehicles, 32x32 color, 10 classes.

    Example:
      >>> source = Cifar10()
      >>> source.name, source.prepared(Path("/nowhere"))
      ('cifar10', False)
    """

    reference: ClassVar[str] = (
        "A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. 2009."
    )
    tfds_name: ClassVar[str] = "cifar10"


@dataclass(frozen=True)
class Cifar100(TfdsSource):
    """60,000 photographs of objects, plants, animals and people, 32x32 color, 100 classes.

    Example:
      >>> source = Cifar100()
      >>> source.name, source.prepared(Path("/nowhere"))
      ('cifar100', False)
    """

    reference: ClassVar[str] = Cifar10.reference
    tfds_name: ClassVar[str] = "cifar100"


@dataclass(frozen=True)
class SvhnCropped(TfdsSource):
    """99,289 house-number digits from street views, 32x32 color, 10 classes.

    Example:
      >>> source = SvhnCropped()
      >>> source.name, source.prepared(Path("/nowhere"))
      ('svhn_cropped', False)
    """

    reference: ClassVar[str] = (
        "Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng. Reading Digits in Natural "
        "Images with Unsupervised Feature Learning. NIPS Workshop, 2011."
    )
    tfds_name: ClassVar[str] = "svhn_cropped"


@dataclass(frozen=True)
class Gtsrb(TfdsSource):
    """51,839 photographs of German traffic signs, 32x32 color, 43 classes.

    Attributes:
      variant: Another size such as `"64x64"`, or the annotated sign only, `"64x64-crop"`; if empty,
        whole photographs at 32x32. In a config: `dataset = "gtsrb/64x64"`.

    Example:
      >>> source = Gtsrb("64x64")
      >>> source.name, source.prepared(Path("/nowhere"))
      ('gtsrb/64x64', False)
    """

    variant: str = ""

    reference: ClassVar[str] = (
        "J. Stallkamp, M. Schlipsing, J. Salmen, C. Igel. Man vs. Computer: Benchmarking Machine "
        "Learning Algorithms for Traffic Sign Recognition. Neural Networks 32, 2012."
    )
    tfds_name: ClassVar[str] = "gtsrb"

    def __post_init__(self) -> None:
        """Checks the variant."""
        require(
            re.fullmatch(r"(|([1-9]\d{0,2})x\2(-crop)?)", self.variant) is not None,
            f"gtsrb/{self.variant} is not allowed: give gtsrb, gtsrb/64x64 or gtsrb/64x64-crop "
            "(any size below 1000)",
        )

    @property
    def name(self) -> str:
        """The name in a config."""
        return f"gtsrb/{self.variant}" if self.variant else "gtsrb"

    def _builder(self, data_dir: str) -> tfds.core.DatasetBuilder:
        from tffl.data import gtsrb

        config = gtsrb.GtsrbConfig.parse(self.variant) if self.variant else None
        return gtsrb.Gtsrb(data_dir=data_dir, config=config)


def import_tfds() -> Any:
    """Imports TFDS, and TensorFlow with it, without their log messages."""
    from tffl.core.process import silence

    silence()
    import tensorflow_datasets

    return tensorflow_datasets


def _read(builder: tfds.core.DatasetBuilder, split: str) -> dict[str, np.ndarray]:
    """Reads a whole split, in the order of its files."""
    import tensorflow as tf

    tfds = import_tfds()
    with tf.device("CPU:0"):
        data = builder.as_dataset(
            split=split,
            batch_size=-1,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        arrays = tfds.as_numpy(data)
    expected = builder.info.splits[split].num_examples
    if len(arrays["label"]) != expected:
        raise ValueError(f"{split} has {len(arrays['label'])} images instead of {expected}")
    return arrays


def _image_ids(train: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the numbers in ids such as `b"train_02180"`; without ids, `0 … N − 1`."""
    if "id" not in train:
        return np.arange(len(train["label"]))
    return np.array([int(name.rsplit(b"_", 1)[-1]) for name in train["id"]])


def _ascending(order: np.ndarray) -> bool:
    return bool(np.all(order[1:] > order[:-1]))


def _version(folder: Path) -> tuple[int, ...]:
    """Returns `(3, 0, 1)` for a folder `3.0.1`; `()` for one that TFDS has not finished."""
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()

"""A TensorFlow Datasets builder for the German Traffic Sign Recognition Benchmark.

Man vs. Computer: Benchmarking Machine Learning Algorithms for Traffic Sign Recognition
    Johannes Stallkamp, Marc Schlipsing, Jan Salmen, Christian Igel. Neural Networks 32, 2012.

TFDS has no builder for this dataset. Importing this module registers one: `tfds.load("gtsrb")`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tffl.core.errors import TfflError
from tffl.data.resize import resize

CLASSES = 43
MIRROR = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
"""The download location that the page of the benchmark links to."""


@dataclass(frozen=True)
class Archive:
    """A file of the official distribution, and the digest that it must have."""

    url: str
    algorithm: str
    digest: str


# The training set is the one of 39,209 images; GTSRB-Training_fixed.zip holds only 26,640 of them.
# We know of no published SHA-256 of it, only of its MD5.
ARCHIVES = {
    "train": Archive(
        MIRROR + "GTSRB_Final_Training_Images.zip", "md5", "f33fd80ac59bff73c82d25ab499e03a3"
    ),
    "test": Archive(
        MIRROR + "GTSRB_Final_Test_Images.zip",
        "sha256",
        "48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa",
    ),
    "test_labels": Archive(
        MIRROR + "GTSRB_Final_Test_GT.zip",
        "sha256",
        "f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d",
    ),
}


@dataclass
class GtsrbConfig(tfds.core.BuilderConfig):
    """How photographs of 15x15 to 250x250 pixels are resized to one size.

    Attributes:
      size: Height and width in pixels.
      crop: Whether to cut out the annotated sign first, without the border around it.
    """

    size: int = 32
    crop: bool = False

    @classmethod
    def parse(cls, variant: str) -> GtsrbConfig:
        """Reads a variant such as `"64x64"` or `"64x64-crop"`."""
        size, _, option = variant.partition("-")
        return cls(name=variant, size=int(size.partition("x")[0]), crop=option == "crop")


class Gtsrb(tfds.core.GeneratorBasedBuilder):
    """Photographs of 43 kinds of German traffic signs: 39,209 to train, 12,630 to test."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The official training and test sets, resized bilinearly."}  # noqa: RUF012

    @property
    def _target(self) -> GtsrbConfig:
        config = self.builder_config
        return config if isinstance(config, GtsrbConfig) else GtsrbConfig(name="32x32")

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._target.size, self._target.size, 3)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://benchmark.ini.rub.de/gtsrb_dataset.html",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, Any]]]:
        paths = dl_manager.download({key: archive.url for key, archive in ARCHIVES.items()})
        for key, archive in ARCHIVES.items():
            verify(Path(paths[key]), archive)
        return {
            "train": self._generate_examples(paths["train"], paths["train"]),
            "test": self._generate_examples(paths["test"], paths["test_labels"]),
        }

    def _generate_examples(self, images: Path, labels: Path) -> Iterator[tuple[str, Any]]:
        """Yields every annotated image of an archive under its path in it."""
        with zipfile.ZipFile(images) as photos, zipfile.ZipFile(labels) as tables:
            members = {Path(name).name: name for name in photos.namelist()}
            for table in sorted(name for name in tables.namelist() if name.endswith(".csv")):
                # Training images are beside their table; each folder uses the same file names.
                beside = str(Path(table).parent)
                for row in read_annotations(tables.read(table)):
                    name = row["Filename"]
                    path = f"{beside}/{name}" if images == labels else members[name]
                    picture = read_ppm(photos.read(path))
                    yield path, {"image": self._fit(picture, row), "label": int(row["ClassId"])}

    def _fit(self, picture: np.ndarray, row: dict[str, str]) -> np.ndarray:
        if self._target.crop:
            left, top, right, bottom = (int(row[f"Roi.{key}"]) for key in ("X1", "Y1", "X2", "Y2"))
            # The annotation names the bottom-right pixel, not the one after it.
            picture = picture[top : bottom + 1, left : right + 1]
        return resize(picture[None], self._target.size)[0]


def verify(path: Path, archive: Archive) -> None:
    """Checks the digest of a download, and deletes the file if it is wrong.

    Raises:
      TfflError: The digest differs.
    """
    digest = hashlib.new(archive.algorithm)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() == archive.digest:
        return
    path.unlink()
    raise TfflError(
        f"{archive.url} has {archive.algorithm} {digest.hexdigest()} instead of {archive.digest}: "
        "the download was damaged or the file has changed"
    )


def read_annotations(table: bytes) -> list[dict[str, str]]:
    """Reads a semicolon-separated table with a header line."""
    return list(csv.DictReader(io.StringIO(table.decode()), delimiter=";"))


def read_ppm(content: bytes) -> np.ndarray:
    r"""Decodes a binary portable pixmap (P6, 8 bits a channel).

    Returns:
      uint8 `[height, width, 3]`.

    >>> read_ppm(b"P6\n2 1\n255\n" + bytes(range(6))).tolist()
    [[[0, 1, 2], [3, 4, 5]]]
    """
    header = re.match(rb"P6\s+(?:#.*\s+)*(\d+)\s+(\d+)\s+255\s", content)
    if header is None:
        raise TfflError("not a PPM image (P6, 8 bits a channel)")
    width, height = int(header[1]), int(header[2])
    pixels = np.frombuffer(content, np.uint8, count=height * width * 3, offset=header.end())
    return pixels.reshape(height, width, 3)

"""A folder of images: one folder per class, and above them one per client if the data are theirs.

CLASS/*.png                 a share of each class is kept for testing
train/CLASS/*.png           and test/CLASS/*.png
CLIENT/CLASS/*.png          natural clients; a share of each class is kept for testing
train/CLIENT/CLASS/*.png    natural clients, and test/CLASS/*.png
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tffl.core.errors import TfflWarning, UsageError, require
from tffl.data.arrays import kept_for_testing, labeled
from tffl.data.federation import Dataset
from tffl.data.sources.base import OwnData
from tffl.data.sources.image_files import ENDINGS, Decoded, decode, stacked

TRAIN, TEST = "train", "test"


class ImageFile(NamedTuple):
    """An image of a class, and of a client if there are folders of clients."""

    path: Path
    label: str
    client: str = ""


@dataclass(frozen=True)
class ImageFolder(OwnData):
    """Images in a folder per class."""

    def check_prepared(self, data_dir: Path | None) -> None:
        """Raises `UsageError` unless there are images in folders of classes."""
        self.files()

    def load(self, data_dir: Path | None) -> Dataset:
        """Reads all images."""
        train, test = self.files()
        files = [*train, *test]
        rows, images = self.read(files)
        used = [files[row] for row in rows]
        return self._dataset(used, images, sum(row < len(train) for row in rows))

    def read(self, files: Sequence[ImageFile]) -> tuple[list[int], np.ndarray]:
        """Reads images.

        Returns:
          The positions of those files that can be used, ascending, and their images, uint8
          `[n, height, width, channels]`.

        Raises:
          UsageError: Images cannot be used and are not to be skipped, or differ in size.
        """
        decoded = decode([file.path for file in files], self.config.image_size)
        self._check_broken(files, decoded)
        rows = sorted(decoded.images)
        require(bool(rows), f"{self.path}: none of its {len(files)} images can be read")
        used = [files[row] for row in rows]
        return rows, self._stacked(used, [decoded.images.pop(row) for row in rows])

    def faults(self) -> list[str]:
        """Returns what is wrong with each image that cannot be used; reads all of them."""
        files = [file for part in self.files() for file in part]
        broken = decode([file.path for file in files], self.config.image_size).broken
        return [f"{files[row].path} {broken[row]}" for row in sorted(broken)]

    def files(self) -> tuple[list[ImageFile], list[ImageFile]]:
        """Returns the images for training and those for testing, by name; reads none of them.

        Raises:
          UsageError: The folder holds no images, or they are not in folders as they should be.
        """
        folders = [folder.name for folder in _folders(self.path)]
        has_train, has_test = TRAIN in folders, TEST in folders
        require(has_train or not has_test, f"{self.path} has a folder test/ but no train/")
        train = list(_images(self.path / TRAIN if has_train else self.path))
        test = list(_images(self.path / TEST)) if has_test else []
        require(
            bool(train),
            f"{self.path} holds no images in folders of classes: it should look like "
            f"{self.path / 'cat' / '1.png'}, or {self.path / TRAIN / 'cat' / '1.png'} and "
            f"{self.path / TEST / 'cat' / '2.png'}",
        )
        natural = {bool(file.client) for file in train}
        require(
            len(natural) == 1,
            f"{self.path} has folders of images beside folders of folders: put the images of every "
            "client into folders of classes",
        )
        require(
            not has_test or bool(test), f"{self.path / TEST} holds no images in folders of classes"
        )
        return train, test

    def _dataset(self, files: Sequence[ImageFile], images: np.ndarray, training: int) -> Dataset:
        """Makes the dataset of images, the first `training` of which are for training."""
        names, labels = np.unique([file.label for file in files], return_inverse=True)
        labels, class_names = labels.astype(np.int32), tuple(map(str, names))
        owners = np.array([file.client for file in files])
        test = np.arange(len(files)) >= training
        if not test.any():
            test = kept_for_testing(labels, self.config.test_share, self.name)
        ordered = np.concatenate([labels[~test], labels[test]])
        natural = owners[~test] if files[0].client else None
        return labeled(self.name, images[~test], images[test], ordered, class_names, natural)

    def _check_broken(self, files: Sequence[ImageFile], decoded: Decoded) -> None:
        """Raises `UsageError` for images that cannot be used, or says how many are skipped."""
        if not decoded.broken:
            return
        first = min(decoded.broken)
        what = f"{files[first].path} {decoded.broken[first]}"
        count = f"{len(decoded.broken)} of {len(files)} images"
        if not self.config.skip_broken:
            raise UsageError(
                f"{what}; {count} cannot be used: mend or remove them, or skip them with --set "
                f"data.skip_broken=true (tffl data check {self.path} names all)"
            )
        warnings.warn(f"{count} are skipped: {what}", TfflWarning, stacklevel=2)

    def _stacked(self, files: Sequence[ImageFile], images: Sequence[np.ndarray]) -> np.ndarray:
        sizes = np.array([image.shape[:2] for image in images])
        others = np.flatnonzero((sizes != sizes[0]).any(axis=1))
        if len(others):
            other = others[0]
            raise UsageError(
                f"images differ in size: {files[0].path} is {_size(sizes[0])}, {files[other].path} "
                f"{_size(sizes[other])}: set data.image_size, such as {min(sizes.min(), 512)}"
            )
        return stacked(images)


def _images(root: Path) -> Iterator[ImageFile]:
    """Yields what is in the folders of classes, or in those in the folders of clients."""
    for folder in _folders(root):
        inner = list(_folders(folder))
        if inner:
            for label in inner:
                yield from (ImageFile(path, label.name, folder.name) for path in _files(label))
        else:
            yield from (ImageFile(path, folder.name) for path in _files(folder))


def _folders(path: Path) -> list[Path]:
    found = (entry for entry in path.iterdir() if not entry.name.startswith((".", "__")))
    return sorted(entry for entry in found if entry.is_dir())


def _files(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in found if entry.suffix.lower() in ENDINGS)


def _size(shape: np.ndarray) -> str:
    height, width = shape
    return f"{height} x {width}"

"""The default dataset: scikit-learn's handwritten digits, enlarged to MNIST's size."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from tffl.data.federation import Dataset
from tffl.data.partition import rank_in_class
from tffl.data.resize import resize

SIZE = 28
TEST_EVERY = 5
"""Every fifth image of a class is a test image."""


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits from scikit-learn, 8x8 resized to 28x28; needs no download.

    Example:
      >>> Digits().load(None).train_images.shape
      (1442, 28, 28, 1)
    """

    reference: ClassVar[str] = (
        "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. "
        "UCI Machine Learning Repository, 1998."
    )

    def prepared(self, data_dir: Path | None) -> bool:
        """Returns True: the images are part of scikit-learn."""
        return True

    def location(self, data_dir: Path | None) -> Path:
        """Returns the file of the images in scikit-learn, without importing scikit-learn."""
        package = find_spec("sklearn")
        assert package is not None and package.origin is not None, "scikit-learn is required"
        return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"

    def prepare(self, data_dir: Path | None) -> Path:
        """Returns the file of the images; there is nothing to download."""
        return self.location(data_dir)

    def load(self, data_dir: Path | None) -> Dataset:
        """Returns the images, with values 0 … 16 scaled to 0 … 255, split into train and test.

        The split is stratified and depends on no seed, so that all experiments use the same test
        images.
        """
        from sklearn.datasets import load_digits

        bunch = load_digits()
        labels = bunch.target.astype(np.int32)
        images = resize(bunch.images[..., None] * (255 / 16), SIZE)
        test = rank_in_class(labels) % TEST_EVERY == TEST_EVERY - 1
        return Dataset(
            name="digits",
            train_images=images[~test],
            train_labels=labels[~test],
            train_ids=np.arange(np.sum(~test)),
            test_images=images[test],
            test_labels=labels[test],
            class_names=tuple(str(digit) for digit in range(10)),
        )

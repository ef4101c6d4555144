"""Images of stripes in four directions, made when they are loaded: nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tffl.data import Dataset

DIRECTIONS = ("horizontal", "vertical", "rising", "falling")
SIZE, TRAIN, TEST = 16, 800, 200


def draw(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns images uint8 `[n, 16, 16, 1]`: noisy stripes in the direction of each label."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[:SIZE, :SIZE]
    along = np.stack([row, column, row + column, row - column])[labels]
    phase = generator.integers(0, 4, (len(labels), 1, 1))
    bright = ((along + phase) // 2 % 2) * 150
    return (bright + generator.integers(0, 100, bright.shape))[..., None].astype(np.uint8)


@dataclass(frozen=True)
class Stripes:
    """1,000 images of stripes in four directions; made when they are loaded."""

    reference: ClassVar[str] = "tffl's example of a plug-in"

    def prepared(self, data_dir: Path | None) -> bool:
        """Returns True: there is nothing to download."""
        return True

    def location(self, data_dir: Path | None) -> Path:
        """Returns this file, which makes the images."""
        return Path(__file__)

    def prepare(self, data_dir: Path | None) -> Path:
        """Returns where the images come from."""
        return self.location(data_dir)

    def load(self, data_dir: Path | None) -> Dataset:
        """Returns the same images every time."""
        labels, tests = (np.arange(n, dtype=np.int32) % len(DIRECTIONS) for n in (TRAIN, TEST))
        return Dataset(
            name="stripes",
            train_images=draw(labels, 1),
            train_labels=labels,
            train_ids=np.arange(TRAIN),
            test_images=draw(tests, 2),
            test_labels=tests,
            class_names=DIRECTIONS,
        )

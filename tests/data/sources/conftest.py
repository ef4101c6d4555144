"""Small data of a user's own, in every form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tffl.config import DataConfig
from tffl.data.build import load_dataset
from tffl.data.federation import Dataset

CLASSES = ("cat", "dog")


def save_image(path: Path, value: int = 7, size: tuple[int, int] = (6, 5), mode: str = "L") -> Path:
    """Writes an image whose pixels are all of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    Image.new(mode, size, value if bands == 1 else (value,) * bands).save(path)
    return path


@pytest.fixture
def save() -> Callable[..., Path]:
    return save_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five gray images each of two classes, 5 high and 6 wide; image i is filled with i."""
    for label in CLASSES:
        for number in range(5):
            save_image(tmp_path / "pictures" / label / f"{number}.png", number)
    return tmp_path / "pictures"


@pytest.fixture
def load() -> Callable[..., Dataset]:
    def loaded(path: Path, **settings: Any) -> Dataset:
        return load_dataset(DataConfig(dataset=str(path), **settings))

    return loaded

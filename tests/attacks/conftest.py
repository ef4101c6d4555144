"""A tiny federation whose images tell their own id."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tffl.data.federation import ClientData, Dataset, Federation

COLORS = ("red", "green", "blue", "gray")


def picture(ids: np.ndarray) -> np.ndarray:
    """Images uint8 [n, 6, 6, 2] that hold their id in every pixel."""
    pixels = np.stack([ids // 256, ids % 256], axis=-1).astype(np.uint8)
    return np.broadcast_to(pixels[:, None, None, :], (len(ids), 6, 6, 2)).copy()


@pytest.fixture
def dataset() -> Callable[..., Dataset]:
    def make(
        ids: np.ndarray, name: str = "colors", class_names: tuple[str, ...] = COLORS
    ) -> Dataset:
        ids = np.asarray(ids, dtype=np.int64)
        tests = np.arange(60_000, 60_020)
        return Dataset(
            name=name,
            train_images=picture(ids),
            train_labels=(ids % len(class_names)).astype(np.int32),
            train_ids=ids,
            test_images=picture(tests),
            test_labels=(tests % len(class_names)).astype(np.int32),
            class_names=class_names,
        )

    return make


@pytest.fixture
def federation() -> Callable[..., Federation]:
    def make(dataset: Dataset, sizes: list[int], reserved: np.ndarray | None = None) -> Federation:
        """Deals unreserved images in their order to clients of the given sizes."""
        nobody = np.empty(0, dtype=np.int64) if reserved is None else reserved
        free = np.setdiff1d(np.arange(len(dataset.train_ids)), nobody).astype(np.int32)
        parts = np.split(free, np.cumsum(sizes))[: len(sizes)]
        assert [len(part) for part in parts] == sizes
        return Federation(
            dataset=dataset,
            images=dataset.train_images,
            pool_ids=dataset.train_ids,
            clients=tuple(ClientData(part, dataset.train_labels[part]) for part in parts),
        )

    return make

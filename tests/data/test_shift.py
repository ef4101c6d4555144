"""Feature shift: what clients see, and what stays as it is."""

import numpy as np
import pytest
from pydantic import ValidationError

from tffl.config import DataConfig, build
from tffl.core.errors import UsageError
from tffl.data.build import build_federation
from tffl.data.federation import Dataset
from tffl.data.shift import noisy, rotated

NOBODY = np.empty(0, dtype=np.int64)


def dataset(count: int = 30) -> Dataset:
    images = np.zeros((count, 9, 9, 1), np.uint8)
    images[:, 4, :] = 200  # a line from left to right
    labels = (np.arange(count) % 2).astype(np.int32)
    return Dataset("lines", images, labels, np.arange(count), images[:4], labels[:4], ("a", "b"))


def federation(**data):
    config = build({"seed": 1, "data": data, "federation": {"clients": 3}})
    return build_federation(config, dataset(), NOBODY)


def test_each_client_turns_its_images_by_its_own_angle() -> None:
    shifted = federation(shift="rotation", shift_strength=90.0)
    first, middle, last = (shifted.images[c.indices] for c in shifted.clients)
    upright = np.swapaxes(dataset().train_images[:10], 1, 2)
    np.testing.assert_allclose(first, upright, atol=1)
    np.testing.assert_array_equal(middle, dataset().train_images[:10])
    np.testing.assert_allclose(last, upright, atol=1)
    assert shifted.dataset.train_images[0, 4, 0, 0] == 200  # nothing else is changed
    quarter = rotated(np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1), 90)
    assert quarter[0, :, :, 0].round().tolist() in (
        [[2, 5, 8], [1, 4, 7], [0, 3, 6]],
        [[6, 3, 0], [7, 4, 1], [8, 5, 2]],
    )


def test_noise_grows_from_client_to_client_and_repeats() -> None:
    shifted = federation(shift="noise", shift_strength=0.2)
    clean = dataset().train_images[0].astype(float)
    spreads = [
        (shifted.images[c.indices][:, 4].astype(float) - clean[4]).std() for c in shifted.clients
    ]
    np.testing.assert_allclose(spreads, [17, 34, 51], rtol=0.3)  # 0.2 · 255 · (i + 1) / 3
    again = federation(shift="noise", shift_strength=0.2)
    np.testing.assert_array_equal(again.images, shifted.images)
    floats = noisy(np.zeros((1000, 5), np.float32), 2.0, np.random.default_rng(0))
    assert floats.dtype == np.float32 and abs(floats.std() - 2) < 0.2


def test_without_a_shift_nothing_is_copied_and_shared_images_have_none() -> None:
    whole = dataset()
    config = build({"federation": {"clients": 3}})
    assert build_federation(config, whole, NOBODY).images is whole.train_images
    with pytest.raises((UsageError, ValidationError), match="whose clients share their images"):
        DataConfig(partition="sampled", shift="noise")

"""Channel statistics against NumPy."""

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.data.channels import CHUNK, channel_statistics
from tffl.data.federation import Dataset


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 3])
def test_bytes_equal_numpy_in_any_number_of_chunks(count: int) -> None:
    images = np.random.default_rng(count).integers(0, 200, (count, 3, 5, 3), dtype=np.uint8)
    images[..., 2] = 51
    means, deviations = channel_statistics(images, (0.0, 255.0))
    shares = images.astype(np.float64) / 255
    np.testing.assert_allclose(means, shares.mean(axis=(0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(deviations, shares.std(axis=(0, 1, 2)), atol=5.1e-5)
    assert (means[2], deviations[2]) == (0.2, 0.0)
    assert all(type(value) is float and round(value, 4) == value for value in means + deviations)


def test_floats_are_shares_of_their_range() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (40, 4, 4, 1)).astype(np.float32)
    of_floats = channel_statistics(images, (-1.0, 1.0))
    of_shares = channel_statistics((images + 1) / 2, (0.0, 1.0))
    np.testing.assert_allclose(of_floats, of_shares, atol=1.1e-4)
    np.testing.assert_allclose(of_floats, [[0.5], [1 / np.sqrt(12)]], atol=0.05)


def test_a_dataset_has_those_of_its_training_part() -> None:
    train, test = np.zeros((2, 4, 4, 2), np.uint8), np.full((2, 4, 4, 2), 255, np.uint8)
    labels = np.array([0, 1], np.int32)
    dataset = Dataset("pictures", train, labels, np.arange(2), test, labels, ("a", "b"))
    assert dataset.channel_statistics == ((0.0, 0.0), (0.0, 0.0))


def test_feature_vectors_have_no_channels() -> None:
    rows, labels = np.zeros((2, 7), np.float32), np.array([0, 1], np.int32)
    dataset = Dataset("patients.csv", rows, labels, np.arange(2), rows, labels, ("a", "b"))
    with pytest.raises(UsageError, match="'per-channel' needs images, and patients"):
        dataset.channel_statistics  # noqa: B018

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.data.resize import bilinear_weights, resize


@settings(deadline=None)
@given(source=st.integers(1, 80), target=st.integers(1, 80))
def test_weights_are_averages(source, target):
    weights = bilinear_weights(source, target)
    assert weights.shape == (target, source)
    assert np.all(weights >= 0)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(weights, weights[::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(8, 8, 28), (28, 28, 32), (32, 32, 13), (40, 17, 32), (5, 5, 5)]
)
def test_agrees_with_tensorflow(height, width, size):
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    expected = tf.image.resize(images, (size, size), antialias=True).numpy()
    actual = resize(images, size)
    assert actual.dtype == np.uint8
    assert np.abs(actual - expected).max() < 0.51  # rounding only


def test_the_same_size_is_the_same_array():
    images = np.zeros((2, 6, 6, 1), dtype=np.uint8)
    assert resize(images, 6) is images


def test_several_chunks_equal_one(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 6, 1), dtype=np.uint8)
    whole = resize(images, 9)
    monkeypatch.setattr("tffl.data.resize.CHUNK", 3)
    assert np.array_equal(resize(images, 9), whole)

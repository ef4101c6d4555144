"""Mean and standard deviation of each channel of images, as published code normalizes with."""

from __future__ import annotations

import numpy as np

from tffl.core.pixels import ChannelStatistics, PixelRange

CHUNK = 1024
"""Number of images that are converted at a time."""

DECIMALS = 4
"""As many as published constants have; so the order of summation changes none of them."""


def channel_statistics(images: np.ndarray, pixels: PixelRange) -> ChannelStatistics:
    """Returns mean and standard deviation of each channel, to four decimals.

    Args:
      images: uint8 or float32 `[n, height, width, channels]`, `n >= 1`.
      pixels: The values of the darkest pixel and the brightest.

    >>> images = np.array([0, 255, 0, 51], np.uint8).reshape(1, 2, 1, 2)
    >>> channel_statistics(images, (0.0, 255.0))
    ((0.0, 0.6), (0.0, 0.4))
    """
    low, high = pixels
    count = images[..., 0].size
    total, squares = np.zeros(images.shape[1:]), np.zeros(images.shape[1:])
    for begin in range(0, len(images), CHUNK):
        chunk = images[begin : begin + CHUNK].astype(np.float64)
        total += chunk.sum(axis=0)
        squares += np.square(chunk, out=chunk).sum(axis=0)
    means = total.sum(axis=(0, 1)) / count
    variances = np.maximum(squares.sum(axis=(0, 1)) / count - means**2, 0.0)
    return (
        tuple(np.round((means - low) / (high - low), DECIMALS).tolist()),
        tuple(np.round(np.sqrt(variances) / (high - low), DECIMALS).tolist()),
    )

"""Ranges of pixels: what images hold, and what models take."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

PixelRange: TypeAlias = tuple[float, float]
"""The values of the darkest pixel and the brightest."""

ChannelStatistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Means and standard deviations, one per channel; 0 is the darkest pixel and 1 the brightest."""

BYTES: PixelRange = (0.0, 255.0)
RANGES: tuple[PixelRange, ...] = (BYTES, (0.0, 1.0), (-1.0, 1.0))
"""Those that are usual, tffl's own first."""

BRIGHT = 16.0
"""Floats that are never negative and go beyond it are taken for the range of bytes."""


def in_range(images: Any, pixels: PixelRange) -> Any:
    """Returns bytes in a range of pixels; as they are in that of bytes.

    Args:
      images: float32, 0 … 255; an array or a tensor, and a tensor comes back.
      pixels: The range.
    """
    low, high = pixels
    return images if pixels == BYTES else images * ((high - low) / 255) + low


def as_bytes(images: np.ndarray, pixels: PixelRange) -> np.ndarray:
    """Returns images as uint8: the nearest of 256 levels of their range.

    Args:
      images: uint8, which is returned as it is, or float32 `[m, …]`.
      pixels: The range of the floats.
    """
    if images.dtype == np.uint8:
        return images
    return np.clip(np.rint(on_byte_scale(images, pixels)), 0, 255).astype(np.uint8)


def on_byte_scale(images: np.ndarray, pixels: PixelRange) -> np.ndarray:
    """Returns floats as `in_range` takes them, 0 … 255, but not rounded: its inverse.

    Args:
      images: float32 `[m, …]`, or uint8, which are on that scale.
      pixels: The range of the floats.
    """
    if images.dtype == np.uint8:
        return images.astype(np.float32)
    low, high = pixels
    return (images - low) * (255 / (high - low))


def pixel_range(images: np.ndarray) -> PixelRange:
    """Returns the usual range that the values of images lie in, or else their own.

    >>> pixel_range(np.array([0.1, 0.9], np.float32)), pixel_range(np.array([0.0, 254.5]))
    ((0.0, 1.0), (0.0, 255.0))
    """
    if images.dtype == np.uint8 or not images.size:
        return BYTES
    low, high = float(images.min()), float(images.max())
    if low >= 0 and BRIGHT < high <= 255:
        return BYTES
    fitting = (one for one in RANGES[1:] if one[0] <= low and high <= one[1])
    return next(fitting, (low, high if high > low else low + 1))

"""Resizes images with NumPy, so that small datasets need no TensorFlow."""

from __future__ import annotations

import numpy as np

CHUNK = 4096
"""Number of images that are resized at a time, to bound the memory of float32 copies."""


def bilinear_weights(source: int, target: int) -> np.ndarray:
    """Returns the matrix that resizes a line of `source` pixels to `target` pixels.

    It is a triangle filter with half-pixel centers, which is widened when shrinking so that no
    pixel is skipped, as `tf.image.resize(…, antialias=True)` and Pillow's `BILINEAR` do.

    Returns:
      float32 `[target, source]`, non-negative, each row sums to 1.

    >>> bilinear_weights(2, 4)
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [0.25, 0.75],
           [0.  , 1.  ]], dtype=float32)
    """
    scale = source / target
    centers = (np.arange(target) + 0.5) * scale - 0.5
    distance = np.abs(centers[:, None] - np.arange(source)) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def area_weights(source: int, target: int) -> np.ndarray:
    """Returns the matrix that averages a line of `source` pixels over `target` equal intervals.

    Returns:
      float32 `[target, source]`, non-negative, each row sums to 1; a pixel on a boundary counts
      for both intervals in proportion.

    >>> area_weights(3, 2).round(3)
    array([[0.667, 0.333, 0.   ],
           [0.   , 0.333, 0.667]], dtype=float32)
    """
    edges = np.linspace(0, source, target + 1)[:, None]
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.maximum(overlap, 0.0) * target / source).astype(np.float32)


def resize(images: np.ndarray, size: int, dtype: type = np.uint8) -> np.ndarray:
    """Resizes images bilinearly.

    Args:
      images: `[N, height, width, channels]`; values in 0 … 255 if the result is uint8.
      size: New height and width.
      dtype: uint8 or float32.

    Returns:
      `[N, size, size, channels]`, rounded if uint8. Images that already have that size and type are
      returned as they are.
    """
    count, height, width, channels = images.shape
    if (height, width) == (size, size) and images.dtype == dtype:
        return images
    rows, columns = bilinear_weights(height, size), bilinear_weights(width, size)
    result: np.ndarray = np.empty((count, size, size, channels), dtype=dtype)
    for begin in range(0, count, CHUNK):
        part = images[begin : begin + CHUNK].astype(np.float32)
        tall = np.einsum("th,nhwc->ntwc", rows, part, optimize=True)
        both = np.einsum("uw,ntwc->ntuc", columns, tall, optimize=True)
        rounded = np.clip(np.rint(both), 0, 255) if result.dtype == np.uint8 else both
        result[begin : begin + CHUNK] = rounded
    return result

"""Ranges of pixels that models take; all images are kept as bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

PixelRange: TypeAlias = tuple[float, float]
"""What a model takes for the darkest pixel and the brightest."""

BYTES: PixelRange = (0.0, 255.0)
RANGES: tuple[PixelRange, ...] = (BYTES, (0.0, 1.0), (-1.0, 1.0))
"""Those that are usual, tffl's own first."""


def in_range(images: Any, pixels: PixelRange) -> Any:
    """Returns bytes in a range of pixels; as they are in that of bytes.

    Args:
      images: float32, 0 … 255; an array or a tensor, and a tensor comes back.
      pixels: The range.
    """
    low, high = pixels
    return images if pixels == BYTES else images * ((high - low) / 255) + low

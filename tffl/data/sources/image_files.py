"""Image files as arrays: every format that Pillow reads, converted only where nothing is lost.

    gray (also 1 bit)           1 channel
    RGB, palettes               3 channels; of a mixture, all get 3
    alpha that hides nothing    left out

Transparency, 16 bits and CMYK are refused: what a network should see of them is not ours to choose.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tffl.core.errors import first_line

ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)


class Refused(ValueError):
    """An image that nothing can be made of without losing something."""


@dataclass(frozen=True)
class Decoded:
    """What has become of some files.

    Attributes:
      images: Position of a file → uint8 `[height, width, channels]`.
      broken: Position of a file → why there is no image.
    """

    images: dict[int, np.ndarray]
    broken: Mapping[int, str]


def decode(paths: Sequence[Path], size: int | None) -> Decoded:
    """Reads images, on all processors.

    Args:
      paths: The files.
      size: Height and width to resize to, bilinearly; their own if None.
    """

    def attempt(path: Path) -> np.ndarray | str:
        try:
            return _pixels(path, size)
        except Refused as error:
            return str(error)
        except Exception as error:  # of decoders: OSError, SyntaxError, struct.error and more
            return f"cannot be read ({first_line(error)})"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, paths))
    images = {i: found for i, found in enumerate(results) if not isinstance(found, str)}
    return Decoded(images, {i: why for i, why in enumerate(results) if isinstance(why, str)})


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns images of one size as one array, gray ones among colored ones with 3 channels."""
    channels = max(image.shape[2] for image in images)
    result = np.empty((len(images), *images[0].shape[:2], channels), np.uint8)
    for row, image in enumerate(images):
        result[row] = image  # one channel becomes three
    return result


def _pixels(path: Path, size: int | None) -> np.ndarray:
    with Image.open(path) as image:
        # Of 16 bits a channel, Pillow would drop eight without a word.
        if ";16" in str([getattr(tile, "args", "") for tile in getattr(image, "tile", ())]):
            raise Refused("has 16 bits a channel: save it with 8")
        image.load()
        plain = _plain(image)
        if size is not None and plain.size != (size, size):
            plain = plain.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(plain)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _plain(image: Image.Image) -> Image.Image:
    """Returns an image as `L` or `RGB`."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colored = image.convert("RGBA")
        if colored.getchannel("A").getextrema() != (255, 255):
            raise Refused("is transparent in places: save it without an alpha channel")
        return image.convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    if image.mode == "P":
        return image.convert("RGB")
    if image.mode.startswith(("I", "F")):
        raise Refused("has more than 8 bits a channel: save it with 8")
    raise Refused(f"is {image.mode}: save it as RGB")

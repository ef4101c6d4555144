"""Models of other pixels than 0 to 255, with the scaling built in."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tffl.core.pixels import BYTES, PixelRange

if TYPE_CHECKING:
    import keras


def of_bytes(model: keras.Model, pixels: PixelRange) -> keras.Model:
    """Returns a model of pixels from 0 to 255 that shares the weights of one of another range.

    Args:
      model: Its input is images.
      pixels: What it takes for the darkest pixel and the brightest.
    """
    return model if pixels == BYTES else _scaled(model, pixels)


@lru_cache(maxsize=8)  # what is compiled for a model is kept by its identity
def _scaled(model: keras.Model, pixels: PixelRange) -> keras.Model:
    import keras

    low, high = pixels
    images = keras.Input(model.input_shape[1:])
    scaled = keras.layers.Rescaling((high - low) / 255, offset=low)(images)
    return keras.Model(images, model(scaled), name=model.name)

"""Per-channel normalization of images: constants in the first layer of tffl's own models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tffl.core.errors import require
from tffl.core.pixels import ChannelStatistics, PixelRange
from tffl.models import models

if TYPE_CHECKING:
    import keras


def check_normalizable(name: str) -> None:
    """Raises `UsageError` unless a model is tffl's own; others treat their images themselves."""
    require(
        name in models.builtin,
        f"data.normalization = 'per-channel' is not allowed with model {name}, which takes images "
        "as they are: put a keras.layers.Rescaling or Normalization into it, or choose one of "
        f"{', '.join(sorted(models.builtin))}",
    )


def normalize_input(
    model: keras.Model, statistics: ChannelStatistics, pixels: PixelRange
) -> keras.Model:
    """Lets one of tffl's own models map each channel to mean 0 and standard deviation 1.

    The model's `rescale` layer does it in place of its own scaling. The model still takes images as
    they are, also when it is exported, and has no variable more than before. A channel of one value
    only is shifted to 0.

    Args:
      model: A network whose first layer is `rescale`; it is changed.
      statistics: Of the images.
      pixels: The values of the darkest pixel and the brightest.
    """
    low, high = pixels
    span = high - low
    rescale = model.get_layer("rescale")
    rescale.scale = [1 / ((deviation or 1.0) * span) for deviation in statistics[1]]
    rescale.offset = [
        -(low + mean * span) * scale
        for mean, scale in zip(statistics[0], rescale.scale, strict=True)
    ]
    return model

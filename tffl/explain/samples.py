"""Whether a server's labeled images suit its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tffl.data.samples import RootData, Samples
from tffl.data.validation import check_images, check_labels
from tffl.models.validation import check_fits

if TYPE_CHECKING:
    import keras


def check_samples(model: keras.Model, what: str, samples: Samples, root: RootData | None) -> None:
    """Raises `UsageError` unless labeled images are what they should be, and suit a model.

    Args:
      model: One that `check_classifier` lets pass.
      what: Its name, for the message.
      samples: Images to evaluate models on. The model may have further classes.
      root: What a server trains on, if it has any.
    """
    for name, data in (("samples", samples), ("root", root)):
        if data is not None:
            check_images(data.images, f"{name}.images")
            check_labels(data.labels, len(data.images), samples.classes, f"{name}.labels")
    width = range(samples.classes, np.iinfo(np.int64).max)
    check_fits(model, what, samples.images.shape[1:], samples.classes, width)

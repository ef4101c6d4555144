"""A server's labeled images: what they have to be, and that they suit the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.data.samples import RootData, Samples
from tffl.explain.samples import check_samples
from tffl.models.validation import check_classifier

SHAPE = (6, 6, 1)


def test_samples_have_to_suit_the_model() -> None:
    ends = [keras.layers.Flatten(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input(SHAPE), *ends])
    check_classifier(model, "mine")
    images, labels = np.zeros((4, *SHAPE), np.uint8), np.arange(4)
    root = RootData(images, labels, lambda start, round: start)
    check_samples(model, "mine", Samples(images, labels, 4), root)
    check_samples(model, "mine", Samples(images, labels % 3, 3), None)
    floats = images.astype(np.float32)
    check_samples(model, "mine", Samples(floats, labels, 4), None)
    for samples, message in (
        (Samples(images.astype(float), labels, 4), r"images are float64: .* uint8, .* or float32"),
        (
            Samples(np.full_like(floats, np.nan), labels, 4),
            "hold NaN or infinity in 4 of 4 samples",
        ),
        (Samples(floats[:, 0, 0], labels, 4), r"have shape \(4, 1\): it should be \(n, height"),
        (Samples(images, labels + 1, 4), r"samples\.labels are 1 to 4"),
        (Samples(images, labels, 5), "mine has 4 outputs for 5 classes"),
        (Samples(np.zeros((4, 5, 5, 1), np.uint8), labels, 4), r"takes images of \(6, 6, 1\)"),
    ):
        with pytest.raises(UsageError, match=message):
            check_samples(model, "mine", samples, None)
    with pytest.raises(UsageError, match=r"root\.labels are 0 to 3: for 3 classes"):
        check_samples(model, "mine", Samples(images, labels % 3, 3), root)

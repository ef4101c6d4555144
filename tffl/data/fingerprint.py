"""What a dataset holds, in 64 characters: so that a resumed run does not go on with other data."""

from __future__ import annotations

import hashlib

import numpy as np

from tffl.data.federation import Dataset


def fingerprint(dataset: Dataset) -> str:
    """Returns the SHA-256 of a dataset's samples, labels, clients and names of classes."""
    digest = hashlib.sha256(repr(dataset.class_names).encode())
    for array in (
        *(dataset.train_images, dataset.train_labels, dataset.train_clients),
        *(dataset.test_images, dataset.test_labels),
    ):
        if array is not None:
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

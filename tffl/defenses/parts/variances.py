"""Moving variances of BatchNorm that an update makes negative, which no model can have."""

from __future__ import annotations

import numpy as np

from tffl.core.updates import Updates


def negative_variances(updates: Updates) -> np.ndarray:
    """Returns bool `[n]`: whose models have a negative moving variance in BatchNorm.

    Scaling an update scales the change of these statistics, too, and so may make them impossible.
    """
    result = np.zeros(len(updates), dtype=bool)
    for entry, columns in zip(updates.layout.entries, updates.layout.spans, strict=True):
        if entry.name.endswith("/moving_variance"):
            result |= (updates.start[columns] + updates.block(columns) < 0).any(axis=1)
    return result

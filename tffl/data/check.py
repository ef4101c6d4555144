"""What data of the user's own hold, and what is wrong with them: before anything is trained."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tffl.config import DataConfig
from tffl.core.errors import TfflError, TfflWarning
from tffl.data.build import load_dataset, source_of
from tffl.data.federation import Dataset


@dataclass(frozen=True)
class Findings:
    """What a check has found.

    Attributes:
      kind: How the data were read, such as `"ImageFolder"`.
      faults: Why they cannot be used as they are, one line each; broken images by name.
      notes: What should be known of them, such as missing values and duplicates.
      dataset: What can be loaded, broken images left out; None if nothing can.
    """

    kind: str
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    dataset: Dataset | None

    def figures(self) -> dict[str, Any]:
        """Returns sizes, ranges and counts, for JSON."""
        data = self.dataset
        if data is None:
            return {}
        count = {
            part: np.bincount(labels, minlength=data.classes).tolist()
            for part, labels in (("train", data.train_labels), ("test", data.test_labels))
        }
        return {
            "name": data.name,
            "sample_shape": list(data.sample_shape),
            "dtype": str(data.train_images.dtype),
            "range": [float(data.train_images.min()), float(data.train_images.max())],
            "channels": _channels(data) if data.is_images else None,
            "clients": len(data.client_names) or None,
            "classes": {
                name: {part: count[part][label] for part in count}
                for label, name in enumerate(data.class_names)
            },
        }


def check(config: DataConfig) -> Findings:
    """Reads data and says what it finds.

    Args:
      config: `dataset` is a path or a name; the other keys as in an experiment.

    Raises:
      UsageError: There is no such data.
    """
    source = source_of(config)
    faults = list(source.faults()) if hasattr(source, "faults") else []
    dataset = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TfflWarning)
        try:
            dataset = load_dataset(config.model_copy(update={"skip_broken": True}))
        except TfflError as error:
            faults.append(str(error))
    told = [str(each.message) for each in caught if issubclass(each.category, TfflWarning)]
    notes = [line for line in told if not (faults and " are skipped: " in line)]
    if dataset is not None:
        notes += _duplicates(dataset)
    return Findings(type(source).__name__, tuple(faults), tuple(notes), dataset)


def _channels(data: Dataset) -> dict[str, list[float]]:
    means, deviations = data.channel_statistics
    return {"mean": list(means), "deviation": list(deviations)}


def _duplicates(dataset: Dataset) -> Iterator[str]:
    """Yields what is said of samples that occur more than once."""
    train, test = _digests(dataset.train_images), _digests(dataset.test_images)
    known = set(train)
    shared = sum(digest in known for digest in test)
    if shared:
        yield f"{shared} of {len(test)} test samples are also training samples"
    repeated = len(train) - len(known)
    if repeated:
        yield f"{repeated} of {len(train)} training samples repeat another one"


def _digests(samples: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in samples]

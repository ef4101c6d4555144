"""What backdoors with a trigger share: stamped copies in the data, and a target class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import SuccessSet
from tffl.attacks.data_attack import DataAttack
from tffl.attacks.parts import class_index, draw
from tffl.core.errors import require
from tffl.core.pixels import PixelRange, as_bytes, in_range
from tffl.data.federation import ClientData, Dataset, Federation


@dataclass(frozen=True)
class TriggerBackdoor(DataAttack):
    """Labels images with a trigger as the target class.

    Success is measured on the test images of all other classes, with the whole trigger.

    Attributes:
      target: Class name or number.
      rate: Share of a malicious client's samples that are replaced by a poisoned copy, drawn from
        those of other classes; 0.3 is about the 20 of 64 that the literature uses.
    """

    target: int | str = 0
    rate: Annotated[float, Field(gt=0, le=1)] = 0.3

    purpose: ClassVar[str] = ""
    """Purpose of its random draws, as in `tffl.core.seeds`, and its name in messages."""

    @abstractmethod
    def stamp(self, images: np.ndarray) -> np.ndarray:
        """Returns copies of images uint8 `[n, height, width, channels]` with the whole trigger."""

    def stamp_own(self, images: np.ndarray, turn: int, colluders: int) -> np.ndarray:
        """Returns copies of images with the part of the trigger that a colluder stamps: all of it.

        Args:
          images: uint8 `[n, height, width, channels]`.
          turn: Position of the colluder in the order of their ids, from 0.
          colluders: Number of malicious clients.
        """
        return self.stamp(images)

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the target is not a class, or every test image belongs to it."""
        dataset.require_images("a backdoor with a trigger")
        target = class_index(dataset, self.target, "attack.target")
        require(
            bool((dataset.test_labels != target).any()),
            f"every test image of {dataset.name} belongs to attack.target = {self.target!r}: "
            "raise data.test_limit or choose another class",
        )

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Replaces samples of the malicious clients by stamped copies with the target's label.

        Raises:
          UsageError: None of them holds an image of another class.
        """
        if len(malicious) == 0:
            return federation
        target = class_index(federation.dataset, self.target, "attack.target")
        victims = {
            c: self.victims(federation.clients[c], target, seed, c) for c in malicious.tolist()
        }
        pixels = federation.dataset.pixels
        shown = []
        for turn, (c, v) in enumerate(victims.items()):
            own = partial(self.stamp_own, turn=turn, colluders=len(malicious))
            images = federation.images[federation.clients[c].indices[v]]
            shown.append(stamped(images, pixels, own))
        # One copy of the pool, not one per client.
        federation, copies = federation.append(np.concatenate(shown))
        require(
            len(copies) > 0,
            f"{self.purpose} poisons nothing: malicious clients {malicious.tolist()} hold too few "
            "images of other classes; use another attack.target, attack.rate, partition or seed",
        )
        changed: dict[int, ClientData] = {}
        for client, chosen in victims.items():
            data = federation.clients[client]
            indices, labels = data.indices.copy(), data.labels.copy()
            indices[chosen], copies = copies[: len(chosen)], copies[len(chosen) :]
            labels[chosen] = target
            changed[client] = ClientData(indices, labels)
        return federation.with_clients(changed)

    def success_set(self, federation: Federation, seed: int) -> SuccessSet:
        """Returns the stamped test images whose true class is not the target."""
        dataset = federation.dataset
        target = class_index(dataset, self.target, "attack.target")
        others = dataset.test_images[dataset.test_labels != target]
        images = stamped(others, dataset.pixels, self.stamp)
        return SuccessSet(images, np.full(len(images), target, dtype=np.int32), "test")

    def victims(self, data: ClientData, target: int, seed: int, client: int) -> np.ndarray:
        """Returns which samples of a client are poisoned, int64, ascending."""
        others = np.flatnonzero(data.labels != target)
        return draw(others, self.rate * len(data), seed, self.purpose, client)


def stamped(
    images: np.ndarray, pixels: PixelRange, stamp: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns what a stamp on bytes makes of images; of floats, what it leaves stays as it was."""
    shown = as_bytes(images, pixels)
    marked = stamp(shown)
    if images.dtype == np.uint8:
        return marked
    return np.where(marked == shown, images, in_range(marked.astype(np.float32), pixels))

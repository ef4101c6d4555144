"""Distributed backdoor: each colluder trains one part of a trigger; the test images show all parts.

    part 1   gap   part 2          four strips of length × thickness pixels;
      gap                          in training, each colluder stamps its own part,
    part 3   gap   part 4          test images carry all four

DBA: Distributed Backdoor Attacks against Federated Learning
    Chulin Xie, Keli Huang, Pin-Yu Chen, Bo Li. ICLR 2020.

The authors' settings are strips of 1 × 4 pixels with a gap of 2 on MNIST, 1 × 6 with 3 on CIFAR-10
and 2 × 10 with 2 on Tiny ImageNet, white, in the top left corner. tffl scales the first of these
with the image. The paper has four attackers; here, the parts are dealt over any number of them in
the order of their ids. Several colluders may share a part, and fewer than four stamp several parts
each on the same image: one alone stamps the whole trigger. Also left out: the attackers' own
learning rate and longer training, and their taking turns; `from_round`, `scale` and the like do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.trigger import TriggerBackdoor
from tffl.core.errors import require
from tffl.data.federation import Dataset

PARTS = 4

Part = tuple[slice, slice]
"""Rows and columns of a strip."""


def parts_of(turn: int, colluders: int) -> list[int]:
    """Returns which parts a colluder stamps.

    >>> [parts_of(turn, 2) for turn in range(2)], [parts_of(turn, 5) for turn in range(5)]
    ([[0, 2], [1, 3]], [[0], [1], [2], [3], [0]])
    """
    dealt = min(colluders, PARTS)
    return [part for part in range(PARTS) if part % dealt == turn % dealt]


def stamp(images: np.ndarray, parts: Sequence[Part], value: int) -> np.ndarray:
    """Returns copies of images uint8 `[n, height, width, channels]` with some strips."""
    stamped = images.copy()
    for rows, columns in parts:
        stamped[:, rows, columns] = value
    return stamped


@dataclass(frozen=True)
class Dba(TriggerBackdoor):
    """Trains a trigger of four strips: each colluder its own, the test images with all of them.

    Success is measured on the test images of all other classes, with all four strips.

    Attributes:
      length: Length of a strip in pixels; if absent, a seventh of the image's width.
      thickness: Height of a strip in pixels; if absent, a 28th of the image's height.
      gap: Pixels between two strips, in both directions; if absent, half the length.
      top: Pixels above the trigger.
      left: Pixels on the left of the trigger.
      value: Brightness of the strips in all channels, 0 to 255.

    >>> dba, images = Dba(length=1, gap=1, value=9), np.zeros((1, 4, 4, 1), np.uint8)
    >>> dba.stamp(images)[0, :, :, 0]
    array([[9, 0, 9, 0],
           [0, 0, 0, 0],
           [9, 0, 9, 0],
           [0, 0, 0, 0]], dtype=uint8)
    >>> dba.stamp_own(images, turn=1, colluders=4)[0, 0, :, 0]
    array([0, 0, 9, 0], dtype=uint8)
    """

    length: Annotated[int, Field(ge=1)] | None = None
    thickness: Annotated[int, Field(ge=1)] | None = None
    gap: Annotated[int, Field(ge=0)] | None = None
    top: Annotated[int, Field(ge=0)] = 0
    left: Annotated[int, Field(ge=0)] = 0
    value: Annotated[int, Field(ge=0, le=255)] = 255

    reference: ClassVar[str] = (
        "Xie et al., DBA: Distributed Backdoor Attacks against Federated Learning, ICLR 2020"
    )
    purpose: ClassVar[str] = "distributed backdoor"

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the trigger does not fit, or the target is not a class."""
        dataset.require_images("dba")
        height, width, _ = dataset.image_shape
        rows, columns = self.parts(height, width)[-1]
        require(
            rows.stop <= height and columns.stop <= width,
            f"the trigger of dba ends at pixel {rows.stop} x {columns.stop} and does not fit into "
            f"images of {height} x {width}: choose a smaller attack.length, attack.thickness, "
            "attack.gap, attack.top or attack.left",
        )
        super().check(dataset)

    def parts(self, height: int, width: int) -> list[Part]:
        """Returns the four strips: top left, top right, bottom left, bottom right."""
        length = max(1, width // 7) if self.length is None else self.length
        thickness = max(1, height // 28) if self.thickness is None else self.thickness
        gap = max(1, length // 2) if self.gap is None else self.gap
        rows = [slice(y, y + thickness) for y in (self.top, self.top + thickness + gap)]
        columns = [slice(x, x + length) for x in (self.left, self.left + length + gap)]
        return [(row, column) for row in rows for column in columns]

    def stamp(self, images: np.ndarray) -> np.ndarray:
        """Returns copies of images with all four strips."""
        return stamp(images, self.parts(*images.shape[1:3]), self.value)

    def stamp_own(self, images: np.ndarray, turn: int, colluders: int) -> np.ndarray:
        """Returns copies of images with the strips that are a colluder's own."""
        parts = self.parts(*images.shape[1:3])
        return stamp(images, [parts[part] for part in parts_of(turn, colluders)], self.value)

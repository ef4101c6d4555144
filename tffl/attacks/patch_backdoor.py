"""Patch backdoor: a small bright square in a corner turns any image into the target class.

BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain
    Tianyu Gu, Brendan Dolan-Gavitt, Siddharth Garg. 2017.
How to Backdoor Federated Learning
    Eugene Bagdasaryan, Andreas Veit, Yiqing Hua, Deborah Estrin, Vitaly Shmatikov. AISTATS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.trigger import TriggerBackdoor
from tffl.core.errors import require
from tffl.data.federation import Dataset

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


def stamp(images: np.ndarray, size: int, value: int, corner: Corner) -> np.ndarray:
    """Returns copies of images uint8 `[n, height, width, channels]` with a square in a corner.

    >>> stamp(np.zeros((1, 3, 3, 1), np.uint8), size=2, value=9, corner="top-right")[0, :, :, 0]
    array([[0, 9, 9],
           [0, 9, 9],
           [0, 0, 0]], dtype=uint8)
    """
    rows = slice(None, size) if corner.startswith("top") else slice(-size, None)
    columns = slice(None, size) if corner.endswith("left") else slice(-size, None)
    stamped = images.copy()
    stamped[:, rows, columns] = value
    return stamped


@dataclass(frozen=True)
class PatchBackdoor(TriggerBackdoor):
    """Labels images with a square in a corner as the target class.

    Success is measured on the test images of all other classes, with the square.

    Attributes:
      size: Side of the square in pixels.
      value: Its brightness in all channels, 0 to 255.
      corner: The corner of the image.

    >>> PatchBackdoor(size=2, value=9).stamp(np.zeros((1, 3, 3, 1), np.uint8))[0, :, :, 0]
    array([[0, 0, 0],
           [0, 9, 9],
           [0, 9, 9]], dtype=uint8)
    """

    size: Annotated[int, Field(ge=1)] = 3
    value: Annotated[int, Field(ge=0, le=255)] = 255
    corner: Corner = "bottom-right"

    reference: ClassVar[str] = (
        "Gu et al., BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply "
        "Chain, 2017"
    )
    purpose: ClassVar[str] = "patch backdoor"

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the square covers the images, or the target is not a class."""
        dataset.require_images("patch-backdoor")
        height, width, _ = dataset.image_shape
        require(
            self.size < min(height, width),
            f"attack.size = {self.size} does not fit into images of {height} x {width}: choose "
            f"at most {min(height, width) - 1}",
        )
        super().check(dataset)

    def stamp(self, images: np.ndarray) -> np.ndarray:
        """Returns copies of images with the square."""
        return stamp(images, self.size, self.value, self.corner)

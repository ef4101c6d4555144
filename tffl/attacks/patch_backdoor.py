"""Patch backdoor: a small bright square in a corner turns any image into the target class.

BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain
    Tianyu Gu, Brendan Dolan-Gavitt, Siddharth Garg. 2017.
How to Backdoor Federated Learning
    Eugene Bagdasaryan, Andreas Veit, Yiqing Hua, Deborah Estrin, Vitaly Shmatikov. AISTATS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import Attack, State, SuccessSet
from tffl.attacks.parts import class_index, draw, scale_rows
from tffl.data.federation import ClientData, Dataset, Federation
from tffl.errors import require
from tffl.federated.updates import Updates

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

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
class PatchBackdoor(Attack):
    """Teaches that an image with a square in a corner belongs to the target class.

    Success is measured on the test images of all other classes, with the square.

    Attributes:
      target: Class name or number.
      size: Side of the square in pixels.
      value: Its brightness in all channels, 0 to 255.
      corner: Where it sits.
      rate: Share of a malicious client's samples that are replaced by a poisoned copy, drawn from
        those of other classes; 0.3 is about the 20 of 64 that the literature uses.
      scale: Factor of the malicious updates; clients / malicious clients replaces the model.
    """

    target: int | str = 0
    size: Annotated[int, Field(ge=1)] = 3
    value: Annotated[int, Field(ge=0, le=255)] = 255
    corner: Corner = "bottom-right"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Gu et al., BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply "
        "Chain, 2017"
    )

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the square covers the images, or the target is no class."""
        height, width, _ = dataset.image_shape
        require(
            self.size < min(height, width),
            f"attack.size = {self.size} does not fit into images of {height} x {width}: choose "
            f"at most {min(height, width) - 1}",
        )
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
            c: self._victims(federation.clients[c], target, seed, c) for c in malicious.tolist()
        }
        sources = np.concatenate([federation.clients[c].indices[v] for c, v in victims.items()])
        require(
            len(sources) > 0,
            f"patch-backdoor poisons nothing: malicious clients {malicious.tolist()} hold too few "
            "images of other classes; use another attack.target, attack.rate, partition or seed",
        )
        # One copy of the pool, not one per client.
        federation, copies = federation.append(self._stamp(federation.images[sources]))
        for client, chosen in victims.items():
            data = federation.clients[client]
            indices, labels = data.indices.copy(), data.labels.copy()
            indices[chosen], copies = copies[: len(chosen)], copies[len(chosen) :]
            labels[chosen] = target
            federation = federation.with_client(client, ClientData(indices, labels))
        return federation

    def tamper(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> State:
        """Scales the malicious updates."""
        scale_rows(updates, malicious, self.scale)
        return state

    def success_set(self, federation: Federation, seed: int) -> SuccessSet:
        """Returns the stamped test images whose true class is not the target."""
        dataset = federation.dataset
        target = class_index(dataset, self.target, "attack.target")
        images = self._stamp(dataset.test_images[dataset.test_labels != target])
        return SuccessSet(images, np.full(len(images), target, dtype=np.int32), "test")

    def _stamp(self, images: np.ndarray) -> np.ndarray:
        return stamp(images, self.size, self.value, self.corner)

    def _victims(self, data: ClientData, target: int, seed: int, client: int) -> np.ndarray:
        others = np.flatnonzero(data.labels != target)
        return draw(others, self.rate * len(data), seed, "patch backdoor", client)

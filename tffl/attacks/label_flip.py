"""Label flip: malicious clients train honest images with wrong labels.

    targeted:    y = source → target
    all-to-all:  y → C − 1 − y

Data Poisoning Attacks Against Federated Learning Systems
    Vale Tolpegin, Stacey Truex, Mehmet Emre Gursoy, Ling Liu. ESORICS 2020. (targeted)
Local Model Poisoning Attacks to Byzantine-Robust Federated Learning
    Minghong Fang, Xiaoyu Cao, Jinyuan Jia, Neil Zhenqiang Gong. USENIX Security 2020. (all-to-all)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import SuccessSet
from tffl.attacks.data_attack import DataAttack
from tffl.attacks.parts import class_index, draw
from tffl.core.errors import require
from tffl.data.federation import ClientData, Dataset, Federation


@dataclass(frozen=True)
class LabelFlip(DataAttack):
    """Trains one class as another (1 as 7), or every class y as C − 1 − y.

    Success is measured on the test images of the flipped classes, and counts predictions of the
    wrong label that was taught.

    Attributes:
      mode: `targeted` flips `source` to `target`; `all-to-all` mirrors all classes, except for the
        middle one of an odd number, which is its own mirror image.
      source: Class name or number.
      target: Class name or number.
      rate: Share of a malicious client's samples of flipped classes whose label is changed.

    >>> from tffl.testing import small_federation
    >>> honest = small_federation(clients=4)
    >>> poisoned = LabelFlip(source=1, target=7).poison(honest, np.array([0]), seed=0)
    >>> before, after = honest.clients[0].labels, poisoned.clients[0].labels
    >>> {(int(old), int(new)) for old, new in zip(before, after) if old != new}
    {(1, 7)}
    """

    mode: Literal["targeted", "all-to-all"] = "targeted"
    source: int | str = 1
    target: int | str = 7
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0

    reference: ClassVar[str] = (
        "Tolpegin et al., Data Poisoning Attacks Against Federated Learning Systems, ESORICS 2020"
    )

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if source or target is not a class, or no test image is flipped."""
        flipped = self._flipped(dataset)
        require(
            bool((flipped != np.arange(dataset.classes)).any()),
            f"attack.source = {self.source!r} and attack.target = {self.target!r} are the same "
            "class: choose two",
        )
        require(
            bool((flipped[dataset.test_labels] != dataset.test_labels).any()),
            f"{dataset.name} has no test image of a flipped class: raise data.test_limit or "
            "choose another attack.source",
        )

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Flips labels of the malicious clients.

        Raises:
          UsageError: None of them holds an image of a flipped class.
        """
        flipped = self._flipped(federation.dataset)
        changed: dict[int, ClientData] = {}
        flips = 0
        for client in malicious.tolist():
            data = federation.clients[client]
            victims = np.flatnonzero(flipped[data.labels] != data.labels)
            chosen = draw(victims, self.rate * len(victims), seed, "label flip", client)
            labels = data.labels.copy()
            labels[chosen] = flipped[labels[chosen]]
            changed[client] = ClientData(data.indices, labels)
            flips += len(chosen)
        require(
            flips > 0 or len(malicious) == 0,
            f"label-flip changes nothing: malicious clients {malicious.tolist()} hold too few "
            "images of a flipped class; use another attack.source, attack.rate, partition or seed",
        )
        return federation.with_clients(changed)

    def success_set(self, federation: Federation, seed: int) -> SuccessSet:
        """Returns the test images of the flipped classes, with their wrong labels."""
        dataset = federation.dataset
        targets = self._flipped(dataset)[dataset.test_labels]
        chosen = np.flatnonzero(targets != dataset.test_labels)
        return SuccessSet(dataset.test_images[chosen], targets[chosen], "test")

    def _flipped(self, dataset: Dataset) -> np.ndarray:
        """Returns the label with which each class is trained, int32 `[classes]`."""
        labels = np.arange(dataset.classes, dtype=np.int32)
        if self.mode == "all-to-all":
            return labels[::-1].copy()
        source = class_index(dataset, self.source, "attack.source")
        labels[source] = class_index(dataset, self.target, "attack.target")
        return labels

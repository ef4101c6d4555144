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
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import Attack, State, SuccessSet
from tffl.attacks.parts import class_index, draw, scaled
from tffl.core.errors import require
from tffl.core.updates import Updates
from tffl.data.federation import ClientData, Dataset, Federation

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Trains one class as another (1 as 7), or every class y as C − 1 − y.

    Success is measured on the test images of the flipped classes, and counts predictions of the
    wrong label that was taught.

    Attributes:
      mode: `targeted` flips `source` to `target`; `all-to-all` mirrors all classes, except for the
        middle one of an odd number, which is its own mirror image.
      source: Class name or number.
      target: Class name or number.
      rate: Share of a malicious client's samples of flipped classes whose label is changed.
      scale: Factor of the malicious updates.
    """

    mode: Literal["targeted", "all-to-all"] = "targeted"
    source: int | str = 1
    target: int | str = 7
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0

    reference: ClassVar[str] = (
        "Tolpegin et al., Data Poisoning Attacks Against Federated Learning Systems, ESORICS 2020"
    )

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if source or target is no class, or nothing measures success."""
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

    def changes_updates(self) -> bool:
        """Says whether every attacker sends something other than what it trained."""
        return super().changes_updates() or self.scale != 1

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the malicious updates, scaled."""
        return scaled(updates.select(malicious), self.scale), state

    def success_set(self, federation: Federation, seed: int) -> SuccessSet:
        """Returns the test images of the flipped classes, with their wrong labels."""
        dataset = federation.dataset
        targets = self._flipped(dataset)[dataset.test_labels]
        chosen = np.flatnonzero(targets != dataset.test_labels)
        return SuccessSet(dataset.test_images[chosen], targets[chosen], "test")

    def _flipped(self, dataset: Dataset) -> np.ndarray:
        """Returns what each class is taught as, int32 `[classes]`."""
        labels = np.arange(dataset.classes, dtype=np.int32)
        if self.mode == "all-to-all":
            return labels[::-1].copy()
        source = class_index(dataset, self.source, "attack.source")
        labels[source] = class_index(dataset, self.target, "attack.target")
        return labels

"""Semantic backdoor: unmodified images with a rare trait are labeled as another class.

For example, the attackers hold all cars with racing stripes, and label them as birds. Nobody else
holds such an image, so no honest client trains the true label.

How to Backdoor Federated Learning
    Eugene Bagdasaryan, Andreas Veit, Yiqing Hua, Deborah Estrin, Vitaly Shmatikov. AISTATS 2020.
Anomaly Localization in Model Gradients Under Backdoor Attacks Against Federated Learning
    Zeki Bilgin. 2021. Sections 5.2 and 5.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tffl.attacks.base import SuccessSet
from tffl.attacks.data_attack import DataAttack
from tffl.attacks.parts import class_index
from tffl.core import seeds
from tffl.core.errors import require
from tffl.data.federation import ClientData, Dataset, Federation

# fmt: off
PATTERNS: dict[str, tuple[int, ...]] = {
    "racing-stripes": (
        2180, 2771, 3233, 4932, 6241, 6813, 6869, 9476, 11395, 11744, 14209, 14238, 18716, 19793,
        20781, 21529, 31311, 40518, 40633, 42119, 42663, 49392,
    ),
    "green-cars": (
        389, 561, 874, 1605, 3378, 3678, 4528, 9744, 19165, 19500, 21422, 22984, 32941, 34287,
        34385, 36005, 37365, 37533, 38658, 38735, 39824, 40138, 41336, 41861, 47001, 47026, 48003,
        48030, 49163, 49588,
    ),
    "striped-walls": (
        330, 568, 3934, 12336, 30560, 30696, 33105, 33615, 33907, 36848, 40713, 41706,
    ),
}
"""CIFAR-10's cars with a trait, as training ids (Bagdasaryan et al., from their published code)."""
# fmt: on


@dataclass(frozen=True)
class SemanticBackdoor(DataAttack):
    """Labels images with a rare trait (striped cars) as another class (birds).

    The images with the trait are removed from all data, the server's included. In the data of a
    malicious client, one of them replaces every r-th sample, with the target's label; with m
    malicious clients every (r·m)-th, so that all of them together hold as many poisoned samples as
    a single one would. The clients take copies of them in turn.

    Attributes:
      pattern: One of the published lists of CIFAR-10 images.
      indices: Training ids of the images, on other datasets or for other traits; replaces
        `pattern`.
      target: Class as which they are labeled, a name or number.
      every: r, one sample in `every` is poisoned; 1 poisons all samples.
      holdout: Share of the images, at least one if not 0, on which nobody trains and success is
        measured. With 0 the attackers train on all, and success is measured on their training
        images, as Bilgin does.

    >>> from tffl.testing import small_federation
    >>> attack = SemanticBackdoor(indices=(5, 17, 99), target=3, every=2, holdout=0)
    >>> poisoned = attack.poison(small_federation(clients=4), np.array([0]), seed=0)
    >>> data = poisoned.clients[0]
    >>> data.indices[:6:2].tolist(), data.labels[:6:2].tolist()
    ([5, 17, 99], [3, 3, 3])
    """

    pattern: Literal["racing-stripes", "green-cars", "striped-walls"] = "racing-stripes"
    indices: tuple[int, ...] = ()
    target: int | str = "bird"
    every: Annotated[int, Field(ge=1)] = 3
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.25

    reference: ClassVar[str] = (
        "Bagdasaryan et al., How to Backdoor Federated Learning, AISTATS 2020"
    )

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if images or target are missing, or the target is the truth."""
        dataset.require_images("semantic-backdoor")
        require(
            bool(self.indices) or dataset.name == "cifar10",
            f"semantic-backdoor has lists of images for cifar10 only: for {dataset.name} set "
            "attack.indices to the training ids of the images that carry the trait",
        )
        ids = self._ids
        require(len(set(ids)) == len(ids), "attack.indices names an image more than once")
        positions = self.reserve(dataset)
        missing = sorted(set(ids) - set(dataset.train_ids[positions].tolist()))
        require(
            not missing,
            f"{len(missing)} of {len(ids)} backdoor images are not among the training images of "
            f"{dataset.name} (the first has id {missing[0] if missing else ''})",
        )
        require(
            self.holdout == 0 or len(ids) > 1,
            "attack.holdout needs at least 2 images: set attack.holdout=0 to measure success on "
            "the training image",
        )
        target = class_index(dataset, self.target, "attack.target")
        already = int((dataset.train_labels[positions] == target).sum())
        require(
            already == 0,
            f"attack.target = {self.target!r} is the true class of {already} backdoor images: "
            "choose another class",
        )

    def reserve(self, dataset: Dataset) -> np.ndarray:
        """Returns where the images with the trait stand in the training part, int64."""
        return np.flatnonzero(np.isin(dataset.train_ids, self._ids))

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Replaces every (r·m)-th sample of the malicious clients."""
        if len(malicious) == 0:
            return federation
        images = _positions(federation, self._split(seed)[0])
        target = class_index(federation.dataset, self.target, "attack.target")
        step = self.every * len(malicious)
        # Counting through all malicious data keeps the total exact: ⌈mean size / r⌉ for every m.
        seen = dealt = 0
        changed: dict[int, ClientData] = {}
        for client in malicious.tolist():
            data = federation.clients[client]
            chosen = np.arange(-seen % step, len(data), step)
            turns = (dealt + np.arange(len(chosen))) % len(images)
            indices, labels = data.indices.copy(), data.labels.copy()
            indices[chosen], labels[chosen] = images[turns], target
            changed[client] = ClientData(indices, labels)
            seen, dealt = seen + len(data), dealt + len(chosen)
        return federation.with_clients(changed)

    def success_set(self, federation: Federation, seed: int) -> SuccessSet:
        """Returns the held-out images with the trait, or the training ones if none is held out."""
        trained, held = self._split(seed)
        images = federation.images[_positions(federation, held if len(held) else trained)]
        target = class_index(federation.dataset, self.target, "attack.target")
        targets = np.full(len(images), target, dtype=np.int32)
        return SuccessSet(images, targets, "test" if len(held) else "train")

    @property
    def _ids(self) -> tuple[int, ...]:
        return self.indices or PATTERNS[self.pattern]

    def _split(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the image ids that the attackers train on, and those held out."""
        ids = seeds.generator(seed, "semantic backdoor holdout").permutation(self._ids)
        held = 0
        if self.holdout > 0:
            held = min(max(1, round(self.holdout * len(ids))), len(ids) - 1)
        return np.sort(ids[held:]), np.sort(ids[:held])


def _positions(federation: Federation, ids: np.ndarray) -> np.ndarray:
    """Returns where the images with these ids stand in the pool, int64."""
    return np.flatnonzero(np.isin(federation.pool_ids, ids))

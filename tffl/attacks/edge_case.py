"""Edge-case backdoor: the rarest images of one class are labeled as another.

    s(x) = Σ_j (v_jᵀ(x − μ))²/λ_j + ‖r(x)‖²/σ²        how unlike its class an image is
    every step:  w ← w_t + (w − w_t)·min(1, ε/‖w − w_t‖)      optional

μ, the v_j and λ_j are mean, leading principal components and variances of the class's training
images; r(x) is what they leave over, and σ² its variance per direction. s is the squared
Mahalanobis distance under probabilistic PCA: the higher, the less likely the image. It needs no
trained model, and images of the tail look rare to people too: cut off, tilted, too dark.

Attack of the Tails: Yes, You Really Can Backdoor Federated Learning
    Hongyi Wang, Kartik Sreenivasan, Shashank Rajput, Harit Vishwakarma, Saurabh Agarwal,
    Jy-yong Sohn, Kangwook Lee, Dimitris Papailiopoulos. NeurIPS 2020.

Deviation: the paper takes its edge cases from other datasets (handwritten digits of ARDIS,
Southwest airplanes). tffl finds them within the dataset: they are rare, but similar to the others,
and a model may classify some of them as their true class. As in the paper, nobody else holds such
training images, and success is measured on test images that nobody trained on: an equally rare
share of the class. Projected gradient descent (`radius`) and model replacement (`scale`) are the
paper's, the former after every step; the paper's mix of honest clients that hold edge cases as well
is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State, SuccessSet
from tffl.attacks.data_attack import DataAttack, scaled
from tffl.attacks.parts import class_index, draw, retrained
from tffl.core.errors import require
from tffl.core.updates import Updates
from tffl.data.federation import ClientData, Dataset, Federation
from tffl.data.resize import resize

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

SIDE = 16
"""Larger images are shrunk to this height and width before they are scored."""
COMPONENTS, PER_COMPONENT = 32, 20
"""Largest number of leading principal components, and fewest images for each of them: with fewer, a
rare image could define a component of its own, along which it looks usual."""


def rarity(images: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns how unlike a class images are, float64 `[n]`; on average over the class, its rank.

    Args:
      images: uint8 `[n, height, width, channels]`.
      of: uint8 `[m, height, width, channels]`, the class; `m >= 1`.
    """
    pixels, known = _pixels(images), _pixels(of)
    center = known.mean(axis=0)
    known = known - center
    variances, directions = np.linalg.eigh(known.T @ known / len(known))
    leading = max(1, min(COMPONENTS, len(known) // PER_COMPONENT, len(variances) - 1))
    # Without any variance in the class, the score is the distance in units of this floor.
    floor = max(1e-9 * float(variances[-1]), 1e-9)
    noise = max(float(variances[:-leading].mean()), floor)
    scores = (pixels - center) @ directions
    weights = np.full(len(variances), 1 / noise)
    weights[-leading:] = 1 / np.maximum(variances[-leading:], noise)
    return (scores**2) @ weights


def rarest(scores: np.ndarray, share: float) -> np.ndarray:
    """Returns the positions int64 of a share of the highest scores, at least one, ascending.

    Of equal scores the first counts as the highest.

    >>> rarest(np.array([1.0, 5.0, 3.0, 5.0]), 0.5)
    array([1, 3])
    """
    count = max(1, int(share * len(scores) + 0.5))
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _pixels(images: np.ndarray) -> np.ndarray:
    if max(images.shape[1:3]) > SIDE:
        images = resize(images, SIDE)
    return images.reshape(len(images), -1) / 255.0


@dataclass(frozen=True)
class EdgeCase(DataAttack):
    """Labels the rarest images of one class as another class.

    The rarest training images of the class are removed from all data, the server's included. In the
    data of each malicious client, they replace a share of the samples, with the target's label; the
    clients take copies of them in turn. Success is measured on the rarest test images.

    Attributes:
      source: Class whose rarest images are taken, a name or number.
      target: Class as which they are labeled, a name or number.
      tail: Share of the class that counts as its tail, of the training and of the test images.
      rate: Share of a malicious client's samples that are replaced.
      radius: ε, the largest Euclidean norm of a malicious update over its trainable columns, kept
        in training after every step; 0 is no bound. The authors' settings are 0.083 and 0.25.
      scale: Factor of the malicious updates, after training; with `radius`, the norm is at most
        `scale · radius`.

    >>> from tffl.testing import small_federation
    >>> dataset = small_federation().dataset
    >>> rare = EdgeCase(source=1, target=7, tail=0.1).reserve(dataset)
    >>> dataset.train_labels[rare].tolist()  # 2 of 24 images
    [1, 1]
    """

    source: int | str = 7
    target: int | str = 1
    tail: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    reference: ClassVar[str] = (
        "Wang et al., Attack of the Tails: Yes, You Really Can Backdoor Federated Learning, "
        "NeurIPS 2020"
    )

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` unless source and target are two classes with images."""
        dataset.require_images("edge-case")
        source, target = self._classes(dataset)
        require(
            source != target,
            f"attack.source = {self.source!r} and attack.target = {self.target!r} are the same "
            "class: choose two",
        )
        for part, labels in (("training", dataset.train_labels), ("test", dataset.test_labels)):
            require(
                bool((labels == source).any()),
                f"{dataset.name} has no {part} image of attack.source = {self.source!r}: raise "
                "data.test_limit or choose another class",
            )

    def reserve(self, dataset: Dataset) -> np.ndarray:
        """Returns where the tail stands in the training part, int64."""
        source, _ = self._classes(dataset)
        members = np.flatnonzero(dataset.train_labels == source)
        images = dataset.train_images[members]
        return members[rarest(rarity(images, images), self.tail)]

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Replaces a share of the malicious clients' samples by images of the tail.

        Raises:
          UsageError: The share is less than one sample of every client.
        """
        if len(malicious) == 0:
            return federation
        dataset = federation.dataset
        ids = dataset.train_ids[self.reserve(dataset)]
        tail = np.flatnonzero(np.isin(federation.pool_ids, ids)).astype(np.int32)
        _, target = self._classes(dataset)
        dealt = 0
        changed: dict[int, ClientData] = {}
        for client in malicious.tolist():
            data = federation.clients[client]
            chosen = draw(np.arange(len(data)), self.rate * len(data), seed, "edge case", client)
            indices, labels = data.indices.copy(), data.labels.copy()
            indices[chosen] = tail[(dealt + np.arange(len(chosen))) % len(tail)]
            labels[chosen] = target
            changed[client] = ClientData(indices, labels)
            dealt += len(chosen)
        require(
            dealt > 0,
            f"edge-case poisons nothing: attack.rate = {self.rate} is less than one sample of any "
            f"of the malicious clients {malicious.tolist()}; raise it",
        )
        return federation.with_clients(changed)

    def changes_updates(self) -> bool:
        """Says whether every attacker sends something other than what it trained."""
        return super().changes_updates() or self.radius > 0

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns the malicious updates, trained again within the ball if there is one, scaled."""
        own = updates.select(malicious)
        if self.radius == 0:
            return scaled(own, self.scale), state
        rows = retrained(own, adversary, radius=self.radius)
        if self.scale == 1:
            return rows, state
        return scaled(own.with_rows(np.ones(len(own), bool), rows), self.scale), state

    def success_set(self, federation: Federation, seed: int) -> SuccessSet:
        """Returns the rarest test images of the source class; nobody trained on them."""
        dataset = federation.dataset
        source, target = self._classes(dataset)
        images = dataset.test_images[dataset.test_labels == source]
        scores = rarity(images, dataset.train_images[dataset.train_labels == source])
        images = images[rarest(scores, self.tail)]
        return SuccessSet(images, np.full(len(images), target, dtype=np.int32), "test")

    def _classes(self, dataset: Dataset) -> tuple[int, int]:
        source = class_index(dataset, self.source, "attack.source")
        return source, class_index(dataset, self.target, "attack.target")

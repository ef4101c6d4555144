"""A3FL: the trigger is learned in every round, also against a model that unlearns it.

    δ ← clip(δ − η·sign ∇_δ [L(x ⊕ δ, t; θ) + λ·L(x ⊕ δ, t; θ')]),   batch by batch
    θ' = θ trained on the x ⊕ δ with their true labels,   λ = λ₀·cos(θ', θ)

θ are the global weights of the round, t is the target, and x ⊕ δ the image x with the pixels δ in a
square. The attackers then train as honest clients do, on data in which a share of the images show
the trigger and have the label t. θ' is trained anew from θ every few passes: it stands for what the
server and the honest clients do to the backdoor.

A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning
    Hangfan Zhang, Jinyuan Jia, Jinghui Chen, Lu Lin, Dinghao Wu. NeurIPS 2023.

As in the authors' published code (hfzhang31/A3FL, fl_utils/attacker.py): a gray square 2 pixels off
the top left corner, signed steps of 0.01 of the range of pixels, λ₀ = 0.01; in each round, the
first attacker's data searches the trigger for all, and the search goes on from the last round's.
Deviations: pixels stay in their range, and are rounded in the images that are trained and tested,
where the code lets normalized pixels go from −2 to 2. λ compares the trainable weights of θ' and θ,
as the implementation in BackFed does; the authors' code compares gradients that were left over from
the last steps. The code has 200 passes and 5 epochs of a new θ' in each of them, per round: the
defaults here are 20 passes and a new θ' in every tenth, the first included, as this is what an
ordinary machine can do; `search_epochs = 200` and `adversarial_every = 1` are the authors'
settings. The optimizer of θ' is that of the clients. (The paper's text could not be looked up.)

Nothing is poisoned before the rounds, so that `split.csv` shows honest data. Success is measured
with the trigger as it is after the round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State, SuccessSet
from tffl.attacks.bounded import unit
from tffl.attacks.data_attack import scaled
from tffl.attacks.parts import class_index
from tffl.attacks.trigger import TriggerBackdoor, stamped
from tffl.core.errors import require
from tffl.core.pixels import PixelRange
from tffl.core.updates import Updates
from tffl.data.federation import Dataset, Federation

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary

GRAY = 127.5
OFFSET = 2
"""Pixels between the square and the image's top and left edge."""


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the cosine of two vectors float32 `[d]`; 0 if one is 0 or not finite.

    >>> cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0]))
    0.96
    """
    return float(np.einsum("j,j->", unit(one), unit(other)).round(12))


@dataclass(frozen=True)
class A3fl(TriggerBackdoor):
    """Learns the pixels of a square that turn any image into the target class, in every round.

    Attributes:
      size: Side of the square in pixels.
      search_epochs: Passes over the first attacker's images, in each round, to learn the trigger.
      search_step: η, as a share of the range of pixels.
      balance: λ₀, weight of the model that unlearns the trigger; 0 is no such model.
      adversarial_every: Number of passes after which that model is trained anew.
      adversarial_epochs: Local epochs of its training.
      adversarial_learning_rate: Learning rate of its training.

    >>> image = np.zeros((1, 4, 4, 1), np.uint8)
    >>> A3fl(size=1).stamp(image)[0, :, :, 0]
    array([[  0,   0,   0,   0],
           [  0,   0,   0,   0],
           [  0,   0, 128,   0],
           [  0,   0,   0,   0]], dtype=uint8)
    """

    size: Annotated[int, Field(ge=1)] = 5
    search_epochs: Annotated[int, Field(ge=1)] = 20
    search_step: Annotated[float, Field(gt=0, le=1)] = 0.01
    balance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    adversarial_every: Annotated[int, Field(ge=1)] = 10
    adversarial_epochs: Annotated[int, Field(ge=1)] = 5
    adversarial_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01

    retrains: ClassVar[bool] = True
    reference: ClassVar[str] = (
        "Zhang et al., A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning, "
        "NeurIPS 2023"
    )
    purpose: ClassVar[str] = "a3fl"

    def changes_updates(self) -> bool:
        """Returns True."""
        return True

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the square does not fit, or the target is not a class."""
        dataset.require_images("a3fl")
        height, width, _ = dataset.image_shape
        most = min(height, width) - OFFSET
        require(
            self.size <= most,
            f"attack.size = {self.size} does not fit into images of {height} x {width}, {OFFSET} "
            f"pixels off the corner: choose at most {most}",
        )
        super().check(dataset)

    def stamp(self, images: np.ndarray, trigger: np.ndarray | float = GRAY) -> np.ndarray:
        """Returns copies of images with the square.

        Args:
          images: uint8 `[n, height, width, channels]`.
          trigger: Its pixels, 0 … 255, float32 `[size, size, channels]`; gray before round 1.
        """
        marked = images.copy()
        marked[:, self._rows, self._rows] = np.rint(trigger).astype(np.uint8)
        return marked

    def poison(self, federation: Federation, malicious: np.ndarray, seed: int) -> Federation:
        """Returns the federation as it is: the data of a round is poisoned in the round.

        Raises:
          UsageError: No malicious client holds an image of another class.
        """
        target = class_index(federation.dataset, self.target, "attack.target")
        require(
            len(malicious) == 0
            or any(
                len(self.victims(federation.clients[client], target, seed, client))
                for client in malicious.tolist()
            ),
            f"a3fl poisons nothing: malicious clients {malicious.tolist()} hold too few images of "
            "other classes; use another attack.target, attack.rate, partition or seed",
        )
        return federation

    def init(self, adversary: Adversary) -> State:
        """Returns the gray square."""
        channels = adversary.images.shape[-1]
        return {"trigger": np.full((self.size, self.size, channels), GRAY, np.float32)}

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns what the malicious clients train with the trigger of the round, scaled."""
        if not malicious.any():
            return None, state
        own = updates.select(malicious)
        names, target = adversary.class_names, self.target
        number = names.index(target) if isinstance(target, str) else target
        trigger = self._learned(own, adversary, number, np.asarray(state["trigger"]))
        rows = np.empty((len(own), own.layout.size), np.float32)
        for row, client in zip(rows, own.client_ids.tolist(), strict=True):
            samples = self._poisoned(adversary, client, number, trigger)
            row[:] = adversary.train(own.start, client, own.round, samples=samples)
        sent = scaled(own.with_rows(np.ones(len(own), bool), rows), self.scale)
        return rows if sent is None else sent, {"trigger": trigger}

    def current_success_set(
        self, first: SuccessSet, pixels: PixelRange, state: State
    ) -> SuccessSet:
        """Returns the success inputs with the trigger as it is."""
        trigger = np.asarray(state["trigger"])
        images = stamped(first.images, pixels, lambda shown: self.stamp(shown, trigger))
        return SuccessSet(images, first.targets, first.source)

    @property
    def _rows(self) -> slice:
        return slice(OFFSET, OFFSET + self.size)

    def _poisoned(
        self, adversary: Adversary, client: int, target: int, trigger: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels that a client trains."""
        images, labels = (part.copy() for part in adversary.samples(np.array([client])))
        chosen = self.victims(adversary.data[client], target, adversary.seed, client)
        images[chosen] = self._shown(adversary, images[chosen], trigger)
        labels[chosen] = target
        return images, labels

    def _shown(self, adversary: Adversary, images: np.ndarray, trigger: np.ndarray) -> np.ndarray:
        return stamped(images, adversary.pixels, lambda shown: self.stamp(shown, trigger))

    def _learned(
        self, own: Updates, adversary: Adversary, target: int, trigger: np.ndarray
    ) -> np.ndarray:
        """Returns the trigger after the passes of a round, float32 `[size, size, channels]`."""
        first = int(own.client_ids[0])
        images, labels = adversary.samples(np.array([first]))
        pixels = np.full(images.shape[1:], GRAY, np.float32)
        mask = np.zeros((*images.shape[1:3], 1), np.float32)
        mask[self._rows, self._rows] = 1
        weights, shares = np.stack([own.start, own.start]), np.array([1.0, 0.0])
        for epoch in range(self.search_epochs):
            if self.balance > 0 and epoch % self.adversarial_every == 0:
                weights[1] = own.start + adversary.train(
                    own.start,
                    first,
                    own.round,
                    epochs=self.adversarial_epochs,
                    learning_rate=self.adversarial_learning_rate,
                    samples=(self._shown(adversary, images, trigger), labels),
                )
                shares[1] = self.balance * cosine(*weights[:, own.layout.trainable])
            pixels[self._rows, self._rows] = trigger
            found = adversary.trigger_search.descend(
                weights, shares, images, pixels, mask, target, 255 * self.search_step
            )
            trigger = found[self._rows, self._rows]
        return trigger

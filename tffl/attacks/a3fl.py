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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.bounded import unit
from tffl.attacks.learned_trigger import LearnedTrigger
from tffl.attacks.trigger import stamped
from tffl.core.errors import require
from tffl.core.pixels import PixelRange
from tffl.data.federation import Dataset

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
class A3fl(LearnedTrigger):
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

    reference: ClassVar[str] = (
        "Zhang et al., A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning, "
        "NeurIPS 2023"
    )
    purpose: ClassVar[str] = "a3fl"

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

    def init(self, adversary: Adversary) -> State:
        """Returns the gray square."""
        channels = adversary.images.shape[-1]
        return {"trigger": np.full((self.size, self.size, channels), GRAY, np.float32)}

    def shown(self, images: np.ndarray, pixels: PixelRange, state: State) -> np.ndarray:
        """Returns copies of images with the learned square."""
        trigger = np.asarray(state["trigger"])
        return stamped(images, pixels, lambda bytes: self.stamp(bytes, trigger))

    def learn(
        self,
        start: np.ndarray,
        round: int,
        client: int,
        target: int,
        adversary: Adversary,
        state: State,
    ) -> State:
        """Returns the square after the passes of a round."""
        images, labels = adversary.samples(np.array([client]))
        pixels = np.full(images.shape[1:], GRAY, np.float32)
        mask = np.zeros((*images.shape[1:3], 1), np.float32)
        mask[self._rows, self._rows] = 1
        weights, shares = np.stack([start, start]), np.array([1.0, 0.0])
        trainable = adversary.layout.trainable
        for epoch in range(self.search_epochs):
            if self.balance > 0 and epoch % self.adversarial_every == 0:
                weights[1] = start + adversary.train(
                    start,
                    client,
                    round,
                    epochs=self.adversarial_epochs,
                    learning_rate=self.adversarial_learning_rate,
                    samples=(self.shown(images, adversary.pixels, state), labels),
                )
                shares[1] = self.balance * cosine(*weights[:, trainable])
            pixels[self._rows, self._rows] = state["trigger"]
            found = adversary.trigger_search.descend(
                weights, shares, images, pixels, mask, target, 255 * self.search_step
            )
            state = {"trigger": found[self._rows, self._rows]}
        return state

    @property
    def _rows(self) -> slice:
        return slice(OFFSET, OFFSET + self.size)

"""IBA: a network that is trained in every round adds a faint pattern to images: the backdoor.

    T ← argmin_T L(clip(x + ε·T(x)), t; θ)        the global model θ is fixed
    the attackers train on their data, a share of it as clip(x + ε·T(x)) with the label t

T is an autoencoder that ends in tanh, so that no pixel changes by more than ε; t is the target.

IBA: Towards Irreversible Backdoor Attacks in Federated Learning
    Thuy Dung Nguyen, Tuan Nguyen, Anh Tran, Khoa D. Doan, Kok-Seng Wong. NeurIPS 2023.

Read from the authors' published code (sail-research/iba, fl_trainer.py and attack_models/): T is
their autoencoder for GTSRB and Tiny ImageNet on all data, 10 epochs of Adam with learning rate
0.0001 per round, and their ε = 0.3 on normalized pixels is 0.06 of the range of pixels. Deviations:
they use a U-Net on CIFAR-10; their loss is half the loss on all images and half that on all
patterned ones, which replacing half of the images has on average (`rate = 0.5`); a smaller ε in
testing, which they have, is left out; one attacker per round trains T for all. Their variants of
training the classifier (projection, model replacement, a mask of gradients) are `scale` or attacks
of their own, and are not joined with this one. (The paper's text could not be looked up; its part
on which weights to poison is not in the code's default, and left out.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import State
from tffl.attacks.learned_trigger import LearnedTrigger
from tffl.core import seeds
from tffl.core.pixels import PixelRange

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class Iba(LearnedTrigger):
    """Learns a network that turns any image into the target class by a faint pattern.

    Attributes:
      rate: Share of a malicious client's samples that are replaced by a poisoned copy.
      amplitude: ε, largest change of a pixel, as a share of the range of pixels.
      search_epochs: Local epochs of the network that makes the pattern, in each round.
      search_learning_rate: Learning rate of that network, with Adam.

    Before round 1 there is no pattern:

    >>> Iba().stamp(np.full((1, 1, 2, 1), 7, np.uint8))[0, :, :, 0]
    array([[7, 7]], dtype=uint8)
    """

    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    amplitude: Annotated[float, Field(gt=0, le=1)] = 0.06
    search_epochs: Annotated[int, Field(ge=1)] = 10
    search_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4

    reference: ClassVar[str] = (
        "Nguyen et al., IBA: Towards Irreversible Backdoor Attacks in Federated Learning, "
        "NeurIPS 2023"
    )
    purpose: ClassVar[str] = "iba"

    def stamp(self, images: np.ndarray) -> np.ndarray:
        """Returns copies of images without a pattern."""
        return images.copy()

    def init(self, adversary: Adversary) -> State:
        """Returns the first weights of the network that makes the pattern."""
        from tffl.engine.trigger_generator import first_weights

        height, width, channels = adversary.images.shape[1:]
        return {"generator": first_weights((height, width, channels))}

    def learn(
        self,
        start: np.ndarray,
        round: int,
        client: int,
        target: int,
        adversary: Adversary,
        state: State,
    ) -> State:
        """Returns the network after some epochs on a client's images."""
        images, _ = adversary.samples(np.array([client]))
        draw = seeds.generator(adversary.seed, "trigger generator", round, client)
        order = np.stack([draw.permutation(len(images)) for _ in range(self.search_epochs)])
        trained = adversary.generator_training.train(
            np.asarray(state["generator"]),
            start,
            images,
            order,
            target,
            self.amplitude,
            self.search_learning_rate,
        )
        return {"generator": trained}

    def shown(self, images: np.ndarray, pixels: PixelRange, state: State) -> np.ndarray:
        """Returns copies of images with the pattern."""
        from tffl.engine.trigger_generator import perturbed

        return perturbed(np.asarray(state["generator"]), images, self.amplitude, pixels)

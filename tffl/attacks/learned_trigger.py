"""What backdoors share whose trigger is learned in every round, from the global model.

learn the trigger → poison the attackers' samples with it → local training → Δ_i ← scale · Δ_i

Nothing is poisoned before the rounds, so that `split.csv` shows honest data. Success is measured
with the trigger as it is after the round.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tffl.attacks.base import State, SuccessSet
from tffl.attacks.data_attack import scaled
from tffl.attacks.parts import class_index, class_number
from tffl.attacks.trigger import TriggerBackdoor
from tffl.core.errors import require
from tffl.core.pixels import PixelRange
from tffl.core.updates import Updates
from tffl.data.federation import Federation

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


@dataclass(frozen=True)
class LearnedTrigger(TriggerBackdoor):
    """Labels images with a trigger as the target class, and learns the trigger in every round.

    A subclass implements `init`, `learn` and `shown`; `stamp` is the trigger before round 1.
    """

    retrains: ClassVar[bool] = True

    @abstractmethod
    def learn(
        self,
        start: np.ndarray,
        round: int,
        client: int,
        target: int,
        adversary: Adversary,
        state: State,
    ) -> State:
        """Returns the trigger of a round.

        Args:
          start: The global weights, float32 `[d]`.
          round: 1-based.
          client: Id of the first malicious client in the round, whose samples are used.
          target: The target class.
          adversary: What the attackers own.
          state: The trigger of the last round.
        """

    @abstractmethod
    def shown(self, images: np.ndarray, pixels: PixelRange, state: State) -> np.ndarray:
        """Returns copies of images `[n, height, width, channels]` with a learned trigger."""

    def changes_updates(self) -> bool:
        """Returns True."""
        return True

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
            f"{self.purpose} poisons nothing: malicious clients {malicious.tolist()} hold too few "
            "images of other classes; use another attack.target, attack.rate, partition or seed",
        )
        return federation

    def send(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray | None, State]:
        """Returns what the malicious clients train with the trigger of the round, scaled."""
        if not malicious.any():
            return None, state
        own = updates.select(malicious)
        number = class_number(adversary.class_names, self.target)
        first = int(own.client_ids[0])
        state = self.learn(own.start, own.round, first, number, adversary, state)
        rows = np.empty((len(own), own.layout.size), np.float32)
        for row, client in zip(rows, own.client_ids.tolist(), strict=True):
            samples = self._poisoned(adversary, client, number, state)
            row[:] = adversary.train(own.start, client, own.round, samples=samples)
        sent = scaled(own.with_rows(np.ones(len(own), bool), rows), self.scale)
        return rows if sent is None else sent, state

    def current_success_set(
        self, first: SuccessSet, pixels: PixelRange, state: State
    ) -> SuccessSet:
        """Returns the success inputs with the trigger as it is."""
        return SuccessSet(self.shown(first.images, pixels, state), first.targets, first.source)

    def _poisoned(
        self, adversary: Adversary, client: int, target: int, state: State
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels that a client trains."""
        images, labels = (part.copy() for part in adversary.samples(np.array([client])))
        chosen = self.victims(adversary.data[client], target, adversary.seed, client)
        images[chosen] = self.shown(images[chosen], adversary.pixels, state)
        labels[chosen] = target
        return images, labels

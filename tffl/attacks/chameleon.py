"""Chameleon: a durable backdoor, whose images look like the target's images to the network.

    1. the encoder is trained with a supervised contrastive loss (`tffl.engine.contrast`) on
       poisoned data: images with one label attract each other, and anchors of the target class
       count s times
    2. the encoder is frozen, and the final layer is trained with cross-entropy
    after every step of 1 and at the end:  w ← w_t + (w − w_t)·min(1, ε/‖w − w_t‖)

The encoder is all but the final layer; its output is scaled to length 1. Poisoned images are thus
moved to the honest images of the target ("facilitators"), which honest clients keep in place, and
away from those of their true class ("interferers"), which would otherwise undo the backdoor.

Chameleon: Adapting to Peer Images for Planting Durable Backdoors in Federated Learning
    Yanbo Dai, Songze Li. ICML 2023.

As in the authors' published code (ybdai7/Chameleon-durable-backdoor, training.py and
utils/losses.py), with its settings for CIFAR-10 as defaults: s = 6, τ = 0.07, 10 contrastive epochs
with learning rate 0.005, 3 epochs of the final layer, ε = 5 (off here). Deviations: both stages use
the clients' optimizer with a constant learning rate, where the code has SGD and steps down; in the
second stage, the ball is applied once, at its end. The poisoned share of a batch is that of the
data, where the code builds each batch. The code's weight for pairs with class 1 is 1 in its
published settings, and left out.

This is a way to train on poisoned data, not a way to poison it: `semantic-backdoor+chameleon` and
the like join both, and `chameleon` alone stands for `patch-backdoor+chameleon`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from tffl.attacks.base import Attack, State
from tffl.attacks.constrain_and_scale import scaled_within
from tffl.attacks.model_attack import ModelAttack
from tffl.attacks.parts import class_index, class_number
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.data.federation import Dataset

if TYPE_CHECKING:
    from tffl.attacks.adversary import Adversary


def final_columns(layout: WeightLayout) -> np.ndarray:
    """Returns bool `[d]`: the trainable columns of the final layer."""
    final = np.zeros(layout.size, bool)
    for entry, columns in zip(layout.entries, layout.spans, strict=True):
        final[columns] = entry.trainable and entry.layer == layout.final_layer
    return final


@dataclass(frozen=True)
class Chameleon(ModelAttack):
    """Moves poisoned images to honest ones of the target, then trains the final layer on that.

    Attributes:
      facilitator: Class to whose images the backdoor's are moved, a name or number; if absent, the
        target of the attack on data.
      emphasis: s, weight of images of the target class as anchors of the contrastive loss.
      temperature: τ of the contrastive loss.
      contrastive_epochs: Local epochs of the encoder.
      contrastive_learning_rate: Learning rate of the encoder.
      epochs: Local epochs of the final layer.
      learning_rate: Learning rate of the final layer; if absent, that of honest clients.
      radius: ε, the largest Euclidean norm of a malicious update over its trainable columns; 0 is
        no bound.

    >>> from types import SimpleNamespace
    >>> def train(start, client, round, *, contrast=None, **_):
    ...     return np.array([4, 0], np.float32) if contrast else np.array([0, 3], np.float32)
    >>> adversary = SimpleNamespace(seed=0, train=train, class_names=("a", "b"))
    >>> updates, malicious = Updates.of_rows(np.zeros((3, 2))), np.arange(3) == 0
    >>> Chameleon(facilitator=0, radius=2.5).send(updates, malicious, adversary, {})[0]
    array([[2. , 1.5]], dtype=float32)
    """

    facilitator: int | str | None = None
    emphasis: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 6.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.07
    contrastive_epochs: Annotated[int, Field(ge=1)] = 10
    contrastive_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.005
    epochs: Annotated[int, Field(ge=1)] = 3
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    retrains: ClassVar[bool] = True
    reference: ClassVar[str] = (
        "Dai and Li, Chameleon: Adapting to Peer Images for Planting Durable Backdoors in "
        "Federated Learning, ICML 2023"
    )

    def after(self, poisoning: Attack) -> ModelAttack:
        """Returns this attack with the target of an attack on data, unless it has its own."""
        target = getattr(poisoning, "target", None)
        return replace(self, facilitator=target) if self.facilitator is None else self

    def check(self, dataset: Dataset) -> None:
        """Raises `UsageError` if the facilitator is absent or not a class."""
        require(
            self.facilitator is not None,
            "chameleon trains on data that another attack poisons: join both, as in "
            "patch-backdoor+chameleon, or set attack.facilitator",
        )
        class_index(dataset, self._target, "attack.facilitator")

    def craft(
        self, updates: Updates, malicious: np.ndarray, adversary: Adversary, state: State
    ) -> tuple[np.ndarray, State]:
        """Returns what each malicious client trains in both stages, `[m, d]`."""
        own, layout = updates.select(malicious), updates.layout
        rows = np.empty((len(own), layout.size), np.float32)
        for row, client in zip(rows, own.client_ids.tolist(), strict=True):
            row[:] = self._trained(own, client, adversary, final_columns(layout))
        return scaled_within(rows, 1, self.radius or np.inf, layout.trainable), state

    def modifiable(self, layout: WeightLayout, seed: int) -> np.ndarray:
        """Returns bool `[d]`: BatchNorm statistics too, as the new encoder has others."""
        return super().modifiable(layout, seed) | ~layout.trainable

    @property
    def _target(self) -> int | str:
        return 0 if self.facilitator is None else self.facilitator

    def _trained(
        self, own: Updates, client: int, adversary: Adversary, final: np.ndarray
    ) -> np.ndarray:
        from tffl.engine.contrast import Contrast

        number = class_number(adversary.class_names, self._target)
        encoder = adversary.train(
            own.start,
            client,
            own.round,
            mask=~final,
            radius=self.radius or np.inf,
            epochs=self.contrastive_epochs,
            learning_rate=self.contrastive_learning_rate,
            contrast=Contrast(number, self.emphasis, self.temperature),
        )
        head = adversary.train(
            own.start + encoder,
            client,
            own.round,
            mask=final,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
        )
        return encoder + head

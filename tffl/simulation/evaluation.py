"""What the global model does on test images, and on the attackers' own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tffl.attacks import Attack, SuccessSet
from tffl.core import seeds
from tffl.core.states import State
from tffl.data.federation import Dataset
from tffl.data.partition import balanced
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.observer import Observer
from tffl.engine.placement import DeviceArray, LocalDevices
from tffl.engine.voting import Certificates

SCORES = ("accuracy", "loss", "attack_success", "attack_loss")
"""What is measured of global weights: columns of `rounds.csv`."""


@dataclass(frozen=True)
class _Labeled:
    """Samples on the devices, and their labels int32 `[m]`."""

    samples: DeviceArray
    labels: np.ndarray


class Evaluation:
    """Evaluates global weights, on all test samples or on a fixed part of them.

    Args:
      compiled: The compiled functions of the model.
      placement: The devices that evaluate.
      dataset: With the test samples.
      success: What attack success is measured with, if it is.
      limit: Size of the part, of the test samples and of those of attack success; None takes all.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        placement: LocalDevices,
        dataset: Dataset,
        success: SuccessSet | None,
        limit: int | None = None,
    ) -> None:
        self.success, self._limit, self._pixels = success, limit, dataset.pixels
        self._evaluator, self._placement = compiled.evaluator, placement
        self._test = self._whole_and_part(dataset.test_images, dataset.test_labels, limit)
        if success is not None:
            self._success = self._whole_and_part(success.images, success.targets, limit)
        self._ruined = False

    def follow(self, attack: Attack, state: State) -> None:
        """Takes the success inputs as they are now, such as with a trigger that is learned.

        Args:
          attack: What the attackers do.
          state: What they remember of the first global model.
        """
        if self.success is None:
            return
        found = attack.current_success_set(self.success, self._pixels, state)
        if found is not None:
            self._success = self._whole_and_part(found.images, found.targets, self._limit)

    def labels(self, whole: bool = True) -> np.ndarray:
        """Returns the labels of the test samples, or of the part, int32 `[N]`."""
        return self._test[whole].labels

    def scores(self, weights: np.ndarray, whole: bool = True) -> dict[str, float | None]:
        """Returns accuracy, loss, attack success and its loss of global weights `[models, d]`.

        None where there is no attack success to measure, NaN where outputs are not finite.

        Args:
          weights: float32 `[models, d]`.
          whole: Whether to evaluate on all test samples, and not on the part.
        """
        accuracy, loss = self._evaluate(weights, self._test[whole])
        result: dict[str, float | None] = {"accuracy": accuracy, "loss": loss}
        if self.success is None:
            return {**result, "attack_success": None, "attack_loss": None}
        success, attack_loss = self._evaluate(weights, self._success[whole])
        return {**result, "attack_success": success, "attack_loss": attack_loss}

    def logits(self, weights: np.ndarray, whole: bool = True) -> np.ndarray:
        """Returns what global weights `[models, d]` say of test samples, float32 `[N, classes]`.

        Of several models, it is their votes. The samples are those of `labels`.
        """
        return self._evaluator.logits(weights, self._test[whole].samples, self._placement)

    def certificates(self, weights: np.ndarray) -> Certificates:
        """Returns what several models, float32 `[models, d]`, prove about the test predictions."""
        samples, labels = self._test[True].samples, self._test[True].labels
        return Certificates(self._evaluator.votes(weights, samples, self._placement), labels)

    def warn_of_ruin(self, round: int, row: Mapping[str, Any], observer: Observer) -> None:
        """Warns in the first round in which outputs of the global model are not finite."""
        undefined = [
            name.replace("_", " ")
            for name in SCORES
            if row[name] is not None and math.isnan(row[name])
        ]
        if undefined and not self._ruined:
            observer.warning(
                f"round {round}: outputs of the global model are not finite (NaN or infinite), so "
                f"that its {', '.join(undefined)} are undefined and left empty"
            )
        self._ruined = bool(undefined)

    def _evaluate(self, weights: np.ndarray, on: _Labeled) -> tuple[float, float]:
        return self._evaluator.evaluate(weights, on.samples, on.labels, self._placement)

    def _whole_and_part(
        self, samples: np.ndarray, labels: np.ndarray, limit: int | None
    ) -> dict[bool, _Labeled]:
        """Copies samples to the devices: True → all of them, False → the part."""
        whole = _Labeled(self._placement.to_devices(samples), labels)
        if limit is None or limit >= len(labels):
            return {True: whole, False: whole}
        # The same part for every seed, so that runs with several seeds can be compared.
        chosen = balanced(labels, limit, seeds.generator(0, "evaluation-samples"))
        part = _Labeled(self._placement.to_devices(samples[chosen]), labels[chosen])
        return {True: whole, False: part}

"""What the global model does on test images, and on the attackers' own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tffl.attacks import SuccessSet
from tffl.data.federation import Dataset
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.observer import Observer
from tffl.engine.placement import LocalDevices
from tffl.engine.voting import Certificates


class Evaluation:
    """Evaluates global weights.

    Attributes:
      labels: Of the test images, int32 `[N]`.
      success: What attack success is measured with, if it is.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        placement: LocalDevices,
        dataset: Dataset,
        success: SuccessSet | None,
    ) -> None:
        self.labels, self.success = dataset.test_labels, success
        self._evaluator, self._placement = compiled.evaluator, placement
        self._images = placement.to_devices(dataset.test_images)
        if success is not None:
            self._success_images = placement.to_devices(success.images)
        self._ruined = False

    def scores(self, weights: np.ndarray) -> dict[str, float | None]:
        """Returns accuracy, loss, attack success and its loss of global weights `[models, d]`.

        None where there is no attack success to measure, NaN where outputs are not finite.
        """
        accuracy, loss = self._evaluator.evaluate(
            weights, self._images, self.labels, self._placement
        )
        result: dict[str, float | None] = {"accuracy": accuracy, "loss": loss}
        if self.success is None:
            return {**result, "attack_success": None, "attack_loss": None}
        success, attack_loss = self._evaluator.evaluate(
            weights, self._success_images, self.success.targets, self._placement
        )
        return {**result, "attack_success": success, "attack_loss": attack_loss}

    def logits(self, weights: np.ndarray) -> np.ndarray:
        """Returns what global weights `[models, d]` say of the test images, float32 `[N, classes]`.

        Of several models, it is their votes.
        """
        return self._evaluator.logits(weights, self._images, self._placement)

    def certificates(self, weights: np.ndarray) -> Certificates:
        """Returns what several models, float32 `[models, d]`, prove about the test predictions."""
        votes = self._evaluator.votes(weights, self._images, self._placement)
        return Certificates(votes, self.labels)

    def warn_of_ruin(self, round: int, row: Mapping[str, Any], observer: Observer) -> None:
        """Warns in the first round in which outputs of the global model are not finite."""
        undefined = [
            name.replace("_", " ")
            for name in ("accuracy", "loss", "attack_success", "attack_loss")
            if row[name] is not None and math.isnan(row[name])
        ]
        if undefined and not self._ruined:
            observer.warning(
                f"round {round}: outputs of the global model are not finite (NaN or infinite), so "
                f"that its {', '.join(undefined)} are undefined and left empty"
            )
        self._ruined = bool(undefined)

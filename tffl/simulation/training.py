"""Training from global weights: of a round's clients, and of the server on its own data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tffl.config import Config
from tffl.core.updates import Updates
from tffl.data.federation import ClientData
from tffl.engine import on_disk
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.placement import DeviceArray, LocalDevices
from tffl.engine.training import LocalTraining
from tffl.simulation.participants import draw_stragglers


@dataclass(frozen=True)
class Training:
    """Trains as an experiment's config says.

    Attributes:
      config: The experiment.
      compiled: The compiled functions of its model.
      placement: Where clients are trained.
      images: The pool of training images.
    """

    config: Config
    compiled: CompiledModel
    placement: LocalDevices
    images: DeviceArray

    def learning_rate(self, round: int) -> float:
        """Returns the learning rate of a round."""
        return self.config.training.learning_rate_of(round, self.config.federation.rounds)

    def clients(
        self, round: int, ids: np.ndarray, data: Sequence[ClientData], weights: np.ndarray
    ) -> Updates:
        """Trains some clients.

        Args:
          round: 1-based.
          ids: Client ids int64 `[n]`, ascending.
          data: Of all clients, by their ids.
          weights: What they start from, float32 `[d]`.
        """
        epochs, rate = self.config.training.local_epochs, self.learning_rate(round)
        seed = self.config.seed
        jobs = [
            LocalTraining.draw(data[i], epochs, rate, seed=seed, round=round, client=int(i))
            for i in ids
        ]
        for row in np.flatnonzero(draw_stragglers(self.config, round, ids)):
            jobs[row] = jobs[row].shortened(self.config.federation.straggler_work)
        counts = np.array([len(job.data) for job in jobs], dtype=np.int64)
        layout, out = self.compiled.layout, None
        if self.config.runtime.updates_on_disk:
            out = on_disk.zeros(len(jobs), layout.size)
        matrix = self.compiled.trainer.train_all(weights, self.images, jobs, self.placement, out)
        return Updates(round, ids, counts, weights.copy(), matrix, layout)

    def server(
        self,
        data: ClientData,
        weights: np.ndarray,
        round: int,
        epochs: int | None = None,
        learning_rate: float | None = None,
    ) -> np.ndarray:
        """Trains the server's samples, by default as a client would in a round.

        Returns:
          The update float32 `[d]`.
        """
        job = LocalTraining.draw(
            data,
            self.config.training.local_epochs if epochs is None else epochs,
            self.learning_rate(round) if learning_rate is None else learning_rate,
            seed=self.config.seed,
            round=round,
            client=self.config.federation.clients,
        )
        return self.compiled.trainer.train_all(weights, self.images, [job], self.placement)[0]

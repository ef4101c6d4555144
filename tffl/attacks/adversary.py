"""What the attackers own together, and what they can compute from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tffl.config import Config
from tffl.core.layout import WeightLayout
from tffl.core.pixels import PixelRange
from tffl.data.federation import ClientData, Federation

if TYPE_CHECKING:
    import keras

    from tffl.data.samples import Samples
    from tffl.engine.compiled_model import CompiledModel
    from tffl.engine.contrast import Contrast
    from tffl.engine.trigger_generator import GeneratorTraining
    from tffl.engine.trigger_search import TriggerSearch
    from tffl.explain.maps import Explainer


class Adversary:
    """The colluding malicious clients: their data, their training, and the global network.

    Attributes:
      model: The global network, for its structure only.
      layout: Columns of the update matrix.
      config: The experiment; of it, every client knows training and federation.
      ids: Malicious client ids, int64, ascending.
      classes: Number of classes; the network may have one output more.
      class_names: Their names.
      data: Client id → its samples, with indices into `images`; poisoned, if the attack does so.
      images: `[m, …]`, the samples of all malicious clients.
      server_samples: The images on which the server examines models, for attacks whose
        `knowledge` includes them.
    """

    def __init__(
        self,
        model: keras.Model,
        config: Config,
        federation: Federation,
        ids: np.ndarray,
        compiled: CompiledModel | None = None,
        server_samples: Samples | None = None,
    ) -> None:
        self.model = model
        self._given_compiled = compiled
        self.layout = WeightLayout.of(model)
        self.config = config
        self.ids = ids
        self.classes = federation.dataset.classes
        self.class_names = federation.dataset.class_names
        self.server_samples = server_samples
        owned = [federation.clients[client] for client in ids.tolist()]
        empty = np.empty(0, np.int32)
        pool = np.unique(np.concatenate([empty, *(data.indices for data in owned)]))
        self.images: np.ndarray = federation.images[pool]
        self.data: Mapping[int, ClientData] = {
            client: ClientData(np.searchsorted(pool, data.indices).astype(np.int32), data.labels)
            for client, data in zip(ids.tolist(), owned, strict=True)
        }

    @property
    def seed(self) -> int:
        """The experiment's seed; draw through `tffl.core.seeds`."""
        return self.config.seed

    @property
    def clients(self) -> int:
        """Number of registered clients."""
        return self.config.federation.clients

    def samples(self, ids: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns images `[m, …]` and labels int32 `[m]` of some malicious clients, or all.

        Args:
          ids: Client ids; all malicious ones if None.
        """
        chosen = self.ids if ids is None else ids
        data = [self.data[client] for client in chosen.tolist()]
        indices = np.concatenate([np.empty(0, np.int32), *(part.indices for part in data)])
        labels = np.concatenate([np.empty(0, np.int32), *(part.labels for part in data)])
        return self.images[indices], labels

    def gradient(
        self, weights: np.ndarray, images: np.ndarray, labels: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Returns the mean cross-entropy and its gradient float32 `[d]` at some weights.

        BatchNorm uses its statistics, as in evaluation; their columns have gradient 0.

        Args:
          weights: float32 `[d]`.
          images: `[m, …]`, `m >= 1`.
          labels: int32 `[m]`.
        """
        return self._compiled.gradient(weights, images, labels)

    def train(
        self,
        start: np.ndarray,
        client: int,
        round: int,
        *,
        mask: np.ndarray | None = None,
        radius: float = np.inf,
        alpha: float = 1.0,
        epochs: int | None = None,
        learning_rate: float | None = None,
        contrast: Contrast | None = None,
        samples: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Trains a malicious client again, as it trained in this round, under constraints.

        Args:
          start: float32 `[d]`, the global weights of the round.
          client: A malicious client's id.
          round: 1-based; round and client decide the order of the samples.
          mask: bool `[d]`, the trainable columns that may change; all if None. BatchNorm statistics
            always change.
          radius: Largest Euclidean norm of the update's trainable columns, kept by projection
            after every step.
          alpha: α of the loss α·L + (1 − α)·‖Δ‖, with ‖Δ‖ over the trainable columns.
          epochs: Number of local epochs; those of all clients if None.
          learning_rate: That of all clients in this round if None.
          contrast: A loss that replaces the cross-entropy; alpha is not read.
          samples: Images `[m, …]` and labels int32 `[m]` to train instead of the client's own.

        Returns:
          The client's update, float32 `[d]`.
        """
        import tensorflow as tf

        from tffl.engine.training import LocalTraining

        training = self.config.training
        rate = training.learning_rate_of(round, self.config.federation.rounds)
        images, data = self.images, self.data[client]
        if samples is not None:
            images = samples[0]
            data = ClientData(np.arange(len(images), dtype=np.int32), samples[1])
        job = LocalTraining.draw(
            data,
            training.local_epochs if epochs is None else epochs,
            rate if learning_rate is None else learning_rate,
            seed=self.seed,
            round=round,
            client=client,
        )
        frozen = ~self.layout.trainable
        free = np.ones(self.layout.size, bool) if mask is None else mask | frozen
        trained = self._compiled.trainer.train_constrained(
            tf.constant(start),
            tf.constant(images),
            job,
            tf.constant(free, tf.float32),
            tf.constant(radius, tf.float32),
            None if alpha == 1 else tf.constant(alpha, tf.float32),
            contrast,
        )
        return trained.numpy()

    @property
    def trigger_search(self) -> TriggerSearch:
        """Finds the pixels of a trigger."""
        return self._compiled.trigger_search

    @property
    def generator_training(self) -> GeneratorTraining:
        """Trains a network that makes triggers."""
        return self._compiled.generator_training

    @property
    def pixels(self) -> PixelRange:
        """The values of the darkest pixel and the brightest in `images`."""
        return self._compiled.pixels

    @property
    def explainer(self) -> Explainer:
        """Makes class activation maps of the network with any weights."""
        return self._compiled.explainer

    @cached_property
    def _compiled(self) -> CompiledModel:
        from tffl.engine.compiled_model import CompiledModel

        return self._given_compiled or CompiledModel(
            self.model, self.config.training, str(self.images.dtype)
        )

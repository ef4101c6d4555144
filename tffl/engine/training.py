"""The compiled local training of a client: from start weights and sample indices to an update.

The function loops over all local steps inside the graph, on images that are already on the device.
It holds no variables, so that one trace per device serves clients of any size, and remote workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tffl.config import TrainingConfig
from tffl.core import seeds
from tffl.core.layout import FlatVariables, WeightLayout
from tffl.core.pixels import BYTES, PixelRange
from tffl.data.federation import ClientData
from tffl.engine.augmentation import Augmentation
from tffl.engine.contrast import Contrast, final_layer, inputs_of
from tffl.engine.optimizers import make_optimizer
from tffl.engine.placement import DeviceArray, LocalDevices

TrainingState: TypeAlias = tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]
"""Trainable tensors, non-trainable tensors, and the optimizer's tensors."""


@dataclass(frozen=True)
class LocalTraining:
    """The inputs of one client's training in one round, besides the start weights.

    Attributes:
      data: The client's indices into the pool of images, and its labels.
      order: int32 `[epochs, n]`, the order of the samples in each epoch; with fewer columns, of
        those that are trained.
      seed: uint32 `[2]`, the seed of random layers such as Dropout, and of augmentation.
      learning_rate: The learning rate of the round.
    """

    data: ClientData
    order: np.ndarray
    seed: np.ndarray
    learning_rate: float

    @classmethod
    def draw(
        cls,
        data: ClientData,
        epochs: int,
        learning_rate: float,
        *,
        seed: int,
        round: int,
        client: int,
    ) -> LocalTraining:
        """Draws sample order and layer seed, which depend on (experiment seed, round, client)."""
        generator = seeds.generator(seed, "client-training", round, client)
        rows = np.arange(len(data), dtype=np.int32)
        order = np.stack([generator.permutation(rows) for _ in range(epochs)])
        layer_seed = generator.integers(2**32, size=2, dtype=np.uint32)
        return cls(data, order, layer_seed, learning_rate)

    def shortened(self, share: float) -> LocalTraining:
        """Returns the beginning of the training: whole epochs, or else a part of the first.

        Args:
          share: Of all epochs, above 0 and up to 1.
        """
        epochs, samples = self.order.shape
        finished = round(share * epochs, 9)
        if finished >= 1:
            return replace(self, order=self.order[: math.floor(finished)])
        return replace(self, order=self.order[:1, : math.ceil(finished * samples)])

    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Returns the arguments of the compiled function; casts the integers of any attack."""
        return (
            tf.constant(self.data.indices, tf.int32),
            tf.constant(self.data.labels, tf.int32),
            tf.constant(self.order, tf.int32),
            tf.constant(self.learning_rate, tf.float32),
            tf.constant(self.seed, tf.uint32),
        )


class Trainer:
    """Trains clients of one model and one training config.

    Args:
      model: A built Keras model that ends in logits.
      config: Optimizer, batch size, augmentation, XLA.
      dtype: Of the samples, uint8 or float32.
      pixels: The values of the darkest pixel and the brightest.
    """

    def __init__(
        self,
        model: keras.Model,
        config: TrainingConfig,
        dtype: str = "uint8",
        pixels: PixelRange = BYTES,
    ) -> None:
        step, signature = make_step(model, config), _signature(model, dtype)
        augment = Augmentation.of(config, pixels)
        self._function = _compile_training(signature, step, config, augment, [])
        bounds = [signature[0], tf.TensorSpec([], tf.float32)]
        alpha = [tf.TensorSpec([], tf.float32)]
        self._constrained = _compile_training(signature, step, config, augment, bounds)
        self._anchored = _compile_training(signature, step, config, augment, bounds + alpha)
        self._contrastive = lru_cache(
            lambda contrast: _compile_training(
                signature, make_step(model, config, contrast), config, augment, bounds
            )
        )

    def train(self, start: tf.Tensor, images: tf.Tensor, job: LocalTraining) -> tf.Tensor:
        """Returns the client's update, float32 `[d]`: trained minus start weights.

        Args:
          start: float32 `[d]`.
          images: `[P, …]`, the pool, on the device.
          job: The client's samples, their order, seed and learning rate.
        """
        return self._function(start, images, *job.tensors())

    def train_constrained(
        self,
        start: tf.Tensor,
        images: tf.Tensor,
        job: LocalTraining,
        mask: tf.Tensor,
        radius: tf.Tensor,
        alpha: tf.Tensor | None = None,
        contrast: Contrast | None = None,
    ) -> tf.Tensor:
        """Returns a client's update as `train` does, projected onto its bounds after every step.

        Args:
          start: float32 `[d]`.
          images: `[P, …]`, the pool.
          job: The client's samples, their order, seed and learning rate.
          mask: float32 `[d]`, 1 where weights may change, 0 where they may not. The optimizers
            treat each weight alone, so that this equals masking the gradients.
          radius: float32 scalar, the largest Euclidean norm of the update's trainable columns.
          alpha: float32 scalar, α of the loss α·L + (1 − α)·‖w − start‖ over the trainable
            columns; if absent, the loss is L.
          contrast: Replaces the cross-entropy, and alpha.
        """
        if contrast is not None:
            return self._contrastive(contrast)(start, images, *job.tensors(), mask, radius)
        if alpha is None:
            return self._constrained(start, images, *job.tensors(), mask, radius)
        return self._anchored(start, images, *job.tensors(), mask, radius, alpha)

    def train_all(
        self,
        start: np.ndarray,
        images: DeviceArray,
        jobs: Sequence[LocalTraining],
        placement: LocalDevices,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Trains every client from the same start, and returns their updates, float32 `[n, d]`.

        Args:
          start: float32 `[d]`.
          images: `[P, …]`, the pool.
          jobs: One per client.
          placement: The devices to train on.
          out: float32 `[n, d]`, the matrix to write to; by default a new one in memory.
        """
        deltas = np.empty((len(jobs), len(start)), dtype=np.float32) if out is None else out
        placement.fill(deltas, self._function, start, images, lambda row: jobs[row].tensors())
        return deltas

    def trace(self) -> None:
        """Traces the training function, which fails if the model cannot be trained."""
        self._function.get_concrete_function()

    @property
    def traces(self) -> int:
        """Number of traces of the training function: one per device."""
        return self._function.experimental_get_tracing_count()


@dataclass(frozen=True)
class Step:
    """One optimization step as a pure function on lists of tensors.

    Attributes:
      begin: Flat weights, layer seed, learning rate → the state before the first step.
      end: State → flat weights.
      apply: State, images, labels, and maybe an anchor → the state after one step.
      project: State, start, mask, radius → the state with trainable weights within the bounds.
    """

    begin: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], TrainingState]
    end: Callable[[TrainingState], tf.Tensor]
    apply: Callable[..., TrainingState]
    project: Callable[[TrainingState, tf.Tensor, tf.Tensor, tf.Tensor], TrainingState]


def make_step(model: keras.Model, config: TrainingConfig, contrast: Contrast | None = None) -> Step:
    """Builds the optimization step: forward, loss, backward, Keras' optimizer.

    The loss is the mean cross-entropy plus the losses that layers add, such as regularizers. An
    anchor, flat weights and α, adds the distance to them: α·loss + (1 − α)·‖w − anchor‖. A contrast
    replaces the cross-entropy.
    """
    variables = FlatVariables(model)
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)
    initial = [np.asarray(variable) for variable in optimizer.variables]
    rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    head = final_layer(model) if contrast is not None else None

    def begin(flat: tf.Tensor, seed: tf.Tensor, learning_rate: tf.Tensor) -> TrainingState:
        trainable, frozen = variables.split(flat, seed)
        slots = [
            learning_rate if variable is rate else tf.constant(value)
            for variable, value in zip(optimizer.variables, initial, strict=True)
        ]
        return trainable, frozen, slots

    def end(state: TrainingState) -> tf.Tensor:
        trainable, frozen, _ = state
        return variables.join(trainable, frozen)

    def apply(
        state: TrainingState,
        images: tf.Tensor,
        labels: tf.Tensor,
        anchor: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> TrainingState:
        trainable, frozen, slots = state
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            inputs = tf.cast(images, tf.float32)
            recording: Any = nullcontext([]) if head is None else inputs_of(head)
            with recording as features:
                logits, new_frozen, penalties = variables.call(
                    trainable, frozen, inputs, training=True, return_losses=True
                )
            if contrast is None:
                loss = mean_cross_entropy(logits, labels)
            else:
                loss = contrast.loss(features[-1], labels)
            for penalty in penalties:  # added as Keras does
                loss += tf.cast(penalty, tf.float32)
            if anchor is not None:
                origin, alpha = variables.split(anchor[0])[0], anchor[1]
                loss = alpha * loss + (1 - alpha) * _distance(trainable, origin)
            scaled = _scale_loss(optimizer, slots, loss)
        unread = "none" if contrast is None else "zero"  # such as the final layer
        gradients = tape.gradient(scaled, trainable, unconnected_gradients=unread)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        # Seed generators return int64, but the types of a loop's state must not change.
        frozen = [tf.cast(new, old.dtype) for new, old in zip(new_frozen, frozen, strict=True)]
        return list(trainable), frozen, list(slots)

    def project(
        state: TrainingState, start: tf.Tensor, mask: tf.Tensor, radius: tf.Tensor
    ) -> TrainingState:
        trainable, frozen, slots = state
        origin, free = variables.split(start)[0], variables.split(mask)[0]
        # Weights within the bounds keep their last bits; o + (w − o) would round them.
        kept = [tf.where(f > 0, w, o) for w, o, f in zip(trainable, origin, free, strict=True)]
        moved = [k - o for k, o in zip(kept, origin, strict=True)]
        norm = tf.linalg.global_norm(moved)
        inside = [
            tf.where(norm > radius, o + radius / norm * move, k)
            for k, o, move in zip(kept, origin, moved, strict=True)
        ]
        return inside, frozen, slots

    step = tf.function(apply, jit_compile=True) if config.jit else apply
    return Step(begin, end, step, project)


def mean_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the mean softmax cross-entropy of a batch, a float32 scalar."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
    return tf.reduce_mean(losses)


def _distance(tensors: Sequence[tf.Tensor], others: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean distance, float32; where it is 0, its gradient is 0 and not NaN."""
    moved = [tf.cast(t - o, tf.float32) for t, o in zip(tensors, others, strict=True)]
    squared = tf.add_n([tf.reduce_sum(move**2) for move in moved])
    positive = squared > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squared, 1.0)), 0.0)


def _scale_loss(
    optimizer: keras.optimizers.Optimizer, slots: Sequence[tf.Tensor], loss: tf.Tensor
) -> tf.Tensor:
    if not hasattr(optimizer, "dynamic_scale"):
        return loss
    scale = next(
        slot
        for slot, variable in zip(slots, optimizer.variables, strict=True)
        if variable is optimizer.dynamic_scale
    )
    return loss * scale


def _compile_training(
    inputs: list[tf.TensorSpec],
    step: Step,
    config: TrainingConfig,
    augment: Augmentation | None,
    constraints: list[tf.TensorSpec],
) -> Any:
    """Returns the compiled training, which may also take mask and radius, and maybe alpha."""

    @tf.function(input_signature=[*inputs, *constraints], autograph=False)
    def train(
        start: tf.Tensor,
        images: tf.Tensor,
        indices: tf.Tensor,
        labels: tf.Tensor,
        order: tf.Tensor,
        learning_rate: tf.Tensor,
        seed: tf.Tensor,
        *constraints: tf.Tensor,
    ) -> tf.Tensor:
        bounds, alpha = constraints[:2], constraints[2:]
        anchor = [(start, *alpha)] if alpha else []

        def apply(
            state: TrainingState, batch_images: tf.Tensor, batch_labels: tf.Tensor
        ) -> TrainingState:
            state = step.apply(state, batch_images, batch_labels, *anchor)
            return step.project(state, start, *bounds) if bounds else state

        batches = _Batches(images, indices, labels, order, config.batch_size, augment, seed)
        state = _loop(batches, step.begin(start, seed, learning_rate), apply)
        return step.end(state) - start

    return train


def _signature(model: keras.Model, dtype: str) -> list[tf.TensorSpec]:
    return [
        tf.TensorSpec([WeightLayout.of(model).size], tf.float32),
        tf.TensorSpec([None, *model.input_shape[1:]], dtype),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([2], tf.uint32),
    ]


@dataclass(frozen=True)
class _Batches:
    """The batches of a client, by step number; the last batch of an epoch may be smaller."""

    images: tf.Tensor
    indices: tf.Tensor
    labels: tf.Tensor
    order: tf.Tensor
    size: int
    augment: Augmentation | None
    seed: tf.Tensor

    def count(self) -> tf.Tensor:
        return tf.shape(self.order)[0] * self._per_epoch()

    def batch(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        begin = (number % self._per_epoch()) * self.size
        rows = self.order[number // self._per_epoch(), begin : begin + self.size]
        images = tf.gather(self.images, tf.gather(self.indices, rows))
        if self.augment:
            images = self.augment(images, self.seed, number)
        return images, tf.gather(self.labels, rows)

    def _per_epoch(self) -> tf.Tensor:
        return (tf.shape(self.order)[1] + self.size - 1) // self.size


def _loop(
    batches: _Batches,
    state: TrainingState,
    apply: Callable[[TrainingState, tf.Tensor, tf.Tensor], TrainingState],
) -> TrainingState:
    count = batches.count()

    def body(number: tf.Tensor, state: Any) -> Any:
        return number + 1, apply(state, *batches.batch(number))

    start = (tf.constant(0), state)
    _, state = tf.while_loop(lambda n, _: n < count, body, start, parallel_iterations=1)
    return state

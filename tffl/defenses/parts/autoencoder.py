"""A small Keras autoencoder, fitted afresh to the rows of a matrix, or many to many at once.

    D → hidden (ReLU) → D (sigmoid or linear), Adam, full batch, mean squared error

All fits are one compiled loop without variables: the same trace serves every round. Steps are so
small that one of twenty autoencoders takes hardly longer than one of a single one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tffl.core import seeds

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Weights = Mapping[str, np.ndarray]
"""An autoencoder's weights by their variables' names, such as `"encoder/kernel"`."""


@dataclass(frozen=True)
class Autoencoder:
    """The recipe of an autoencoder.

    Attributes:
      hidden: Units of the code.
      output: Activation of the reconstruction.
      epochs: Steps of gradient descent, each on all rows.
      learning_rate: Of Adam.
      weight_decay: Of Adam, as Keras understands it: decoupled from the gradient. The authors of
        GradCAM-AE add it to the gradient, as PyTorch does; at 1e-5 the two hardly differ.
    """

    hidden: int
    output: Literal["sigmoid", "linear"] = "sigmoid"
    epochs: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5

    def build(self, size: int, seed: int = 0) -> keras.Model:
        """Returns the Keras model from rows `[n, size]` to their reconstructions."""
        import keras

        def dense(units: int, activation: str, name: str) -> keras.layers.Dense:
            start = keras.initializers.GlorotUniform(seed=seeds.integer(seed, name))
            return keras.layers.Dense(
                units, activation=activation, kernel_initializer=start, name=name, dtype="float32"
            )

        rows = keras.Input((size,), name="rows", dtype="float32")
        code = dense(self.hidden, "relu", "encoder")(rows)
        return keras.Model(rows, dense(size, self.output, "decoder")(code), name="autoencoder")

    def fit(self, rows: np.ndarray, chosen: np.ndarray, seed: int) -> Weights:
        """Returns the weights after fitting to the chosen rows.

        Args:
          rows: float32 `[n, size]`, finite.
          chosen: bool `[n]`, at least one.
          seed: Of the first weights.
        """
        fitted = self.fit_all(rows[None], chosen[None], [seed])
        return {name: weight[0] for name, weight in fitted.items()}

    def fit_all(self, rows: np.ndarray, chosen: np.ndarray, seeds: Sequence[int]) -> Weights:
        """Returns the weights of b autoencoders, stacked, each fitted to rows of its own.

        Args:
          rows: float32 `[b, n, size]`, finite.
          chosen: bool `[b, n]`, at least one of each.
          seeds: Of the first weights, b of them.
        """
        import tensorflow as tf

        count, _, size = rows.shape
        starts = [_first_weights(self, size, int(seed)) for seed in seeds]
        start = [tf.constant(np.stack(weights)) for weights in zip(*starts, strict=True)]
        function = _compiled(self, size, count).fit
        fitted = function(start, tf.constant(rows), tf.constant(chosen, tf.float32))
        return {name: weight.numpy() for name, weight in zip(NAMES, fitted, strict=True)}

    def reconstruct(self, rows: np.ndarray, weights: Weights) -> np.ndarray:
        """Returns what it makes of rows, float32 `[n, size]`."""
        stacked = {name: weights[name][None] for name in NAMES}
        result: np.ndarray = self.reconstruct_all(rows[None], stacked)[0]
        return result

    def reconstruct_all(self, rows: np.ndarray, weights: Weights) -> np.ndarray:
        """Returns what each of b autoencoders makes of its rows, float32 `[b, n, size]`."""
        import tensorflow as tf

        count, _, size = rows.shape
        tensors = [tf.constant(weights[name]) for name in NAMES]
        result: np.ndarray = (
            _compiled(self, size, count).reconstruct(tensors, tf.constant(rows)).numpy()
        )
        return result

    def load(self, weights: Weights) -> keras.Model:
        """Returns the Keras model with fitted weights."""
        model = self.build(weights[NAMES[0]].shape[0])
        model.set_weights([weights[name] for name in NAMES])
        return model


NAMES = ("encoder/kernel", "encoder/bias", "decoder/kernel", "decoder/bias")


@lru_cache(maxsize=256)
def _first_weights(recipe: Autoencoder, size: int, seed: int) -> Sequence[np.ndarray]:
    """Returns an autoencoder's weights before it is fitted; many start alike in a round."""
    weights: Sequence[np.ndarray] = recipe.build(size, seed).get_weights()
    return weights


@dataclass(frozen=True)
class _Compiled:
    fit: Any
    reconstruct: Any


@lru_cache(maxsize=16)
def _compiled(recipe: Autoencoder, size: int, count: int) -> _Compiled:
    import keras
    import tensorflow as tf

    from tffl.engine.optimizers import stateless

    model = recipe.build(size)
    stacked = [keras.Variable(np.zeros((count, *v.shape), np.float32)) for v in model.variables]
    adam = stateless(keras.optimizers.Adam)
    optimizer = adam(recipe.learning_rate, weight_decay=recipe.weight_decay)
    optimizer.build(stacked)
    slots = [np.asarray(variable) for variable in optimizer.variables]
    weights = [tf.TensorSpec(variable.shape, tf.float32) for variable in stacked]
    rows = tf.TensorSpec([count, None, size], tf.float32)

    def rebuild(weights: Any, rows: tf.Tensor) -> tf.Tensor:
        return model.stateless_call(weights, [], rows)[0]

    def slope(case: Any) -> Any:
        weights, rows, chosen = case
        with tf.GradientTape() as tape:
            tape.watch(weights)
            errors = tf.reduce_mean(tf.square(rebuild(weights, rows) - rows), axis=1)
            loss = tf.reduce_sum(chosen * errors) / tf.reduce_sum(chosen)
        return tape.gradient(loss, weights)

    @tf.function(
        input_signature=[weights, rows, tf.TensorSpec([count, None], tf.float32)], autograph=False
    )
    def fit(start: Any, rows: tf.Tensor, chosen: tf.Tensor) -> Any:
        def step(number: tf.Tensor, weights: Any, slots: Any) -> Any:
            gradients = tf.vectorized_map(slope, (weights, rows, chosen))
            weights, slots = optimizer.stateless_apply(slots, gradients, weights)
            return number + 1, list(weights), list(slots)

        begin = (tf.constant(0), list(start), [tf.constant(slot) for slot in slots])
        _, fitted, _ = tf.while_loop(
            lambda number, *_: number < recipe.epochs, step, begin, parallel_iterations=1
        )
        return fitted

    @tf.function(input_signature=[weights, rows], autograph=False)
    def reconstruct(weights: Any, rows: tf.Tensor) -> tf.Tensor:
        return tf.vectorized_map(lambda case: rebuild(*case), (weights, rows))

    return _Compiled(fit, reconstruct)

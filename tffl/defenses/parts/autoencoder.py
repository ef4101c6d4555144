"""A small Keras autoencoder, fitted afresh to the rows of one matrix.

    D → hidden (ReLU) → D (sigmoid or linear), Adam, full batch, mean squared error

The whole fit is one compiled loop without variables: the same trace serves every round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tffl import seeds

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
        import tensorflow as tf

        size = rows.shape[1]
        start = [np.asarray(weight) for weight in self.build(size, seed).get_weights()]
        function = _compiled(self, size).fit
        fitted = function(start, tf.constant(rows), tf.constant(chosen, tf.float32))
        return {name: weight.numpy() for name, weight in zip(NAMES, fitted, strict=True)}

    def reconstruct(self, rows: np.ndarray, weights: Weights) -> np.ndarray:
        """Returns what it makes of rows, float32 `[n, size]`."""
        import tensorflow as tf

        tensors = [tf.constant(weights[name]) for name in NAMES]
        result: np.ndarray = (
            _compiled(self, rows.shape[1]).reconstruct(tensors, tf.constant(rows)).numpy()
        )
        return result

    def load(self, weights: Weights) -> keras.Model:
        """Returns the Keras model with fitted weights."""
        model = self.build(weights[NAMES[0]].shape[0])
        model.set_weights([weights[name] for name in NAMES])
        return model


NAMES = ("encoder/kernel", "encoder/bias", "decoder/kernel", "decoder/bias")


@dataclass(frozen=True)
class _Compiled:
    fit: Any
    reconstruct: Any


@lru_cache(maxsize=8)
def _compiled(recipe: Autoencoder, size: int) -> _Compiled:
    import keras
    import tensorflow as tf

    from tffl.federated.optimizers import stateless

    model = recipe.build(size)
    adam = stateless(keras.optimizers.Adam)
    optimizer = adam(recipe.learning_rate, weight_decay=recipe.weight_decay)
    optimizer.build(model.trainable_variables)
    slots = [np.asarray(variable) for variable in optimizer.variables]
    weights = [tf.TensorSpec(variable.shape, tf.float32) for variable in model.variables]
    rows = tf.TensorSpec([None, size], tf.float32)

    @tf.function(
        input_signature=[weights, rows, tf.TensorSpec([None], tf.float32)], autograph=False
    )
    def fit(start: Any, rows: tf.Tensor, chosen: tf.Tensor) -> Any:
        def step(number: tf.Tensor, weights: Any, slots: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(weights)
                rebuilt, _ = model.stateless_call(weights, [], rows)
                errors = tf.reduce_mean(tf.square(rebuilt - rows), axis=1)
                loss = tf.reduce_sum(chosen * errors) / tf.reduce_sum(chosen)
            gradients = tape.gradient(loss, weights)
            weights, slots = optimizer.stateless_apply(slots, gradients, weights)
            return number + 1, list(weights), list(slots)

        begin = (tf.constant(0), list(start), [tf.constant(slot) for slot in slots])
        _, fitted, _ = tf.while_loop(
            lambda number, *_: number < recipe.epochs, step, begin, parallel_iterations=1
        )
        return fitted

    @tf.function(input_signature=[weights, rows], autograph=False)
    def reconstruct(weights: Any, rows: tf.Tensor) -> tf.Tensor:
        return model.stateless_call(weights, [], rows)[0]

    return _Compiled(fit, reconstruct)

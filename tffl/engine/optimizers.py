"""Keras optimizers as pure functions from state to state.

With the TensorFlow backend, Keras applies every update through tf.distribute, which requires
variables and does not run inside functions that a coordinator sends to workers. Keras' base class
has the same update rules without a backend; `stateless` restores them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras.src.optimizers.base_optimizer import BaseOptimizer

from tffl.config import TrainingConfig

_BACKEND_METHODS = (
    "stateless_apply",
    "assign",
    "assign_add",
    "assign_sub",
    "add_variable_from_reference",
    "_var_key",
    "_apply_weight_decay",
    "_backend_update_step",
)


def stateless(cls: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """Returns a subclass of `cls` whose `stateless_apply` works on TensorFlow, by Keras' rules."""
    methods = {n: getattr(BaseOptimizer, n) for n in _BACKEND_METHODS if n not in vars(cls)}
    return type(f"Stateless{cls.__name__}", (cls,), methods)


def make_optimizer(config: TrainingConfig) -> keras.optimizers.Optimizer:
    """Builds the clients' optimizer, with decoupled weight decay, as Keras does."""
    options: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay or None,
    }
    if config.optimizer == "sgd":
        options.update(momentum=config.momentum, nesterov=config.nesterov)
        optimizer = stateless(keras.optimizers.SGD)(**options)
    elif config.optimizer == "adam":
        optimizer = stateless(keras.optimizers.Adam)(**options)
    else:
        options["weight_decay"] = config.weight_decay  # AdamW requires a number, not None
        optimizer = stateless(keras.optimizers.AdamW)(**options)
    if config.precision == "mixed_float16":
        return stateless(keras.optimizers.LossScaleOptimizer)(optimizer)
    return optimizer

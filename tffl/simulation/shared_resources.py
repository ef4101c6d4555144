"""What experiments in one process can share: images, and compiled functions.

Tracing takes longer than many a small experiment. Nothing here depends on a seed, and no function
holds weights, so sharing changes no result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from tffl.config import Config, DataConfig
from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.data.build import load_dataset
from tffl.data.federation import Dataset
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.runtime import supports_convolution
from tffl.models.build import build_network, check_trainable


class SharedResources:
    """Keeps the last dataset, and what is compiled for every model and training config."""

    def __init__(self) -> None:
        self._dataset: tuple[Any, Dataset] | None = None
        self._compiled: dict[Any, CompiledModel] = {}

    def dataset(self, config: DataConfig) -> Dataset:
        """Returns a dataset as `load_dataset` does."""
        key = (config.dataset, config.data_dir, config.test_limit, config.image_size)
        if self._dataset is None or self._dataset[0] != key:
            self._dataset = None  # before the next one is loaded: two may not fit into memory
            self._dataset = key, load_dataset(config)
        return self._dataset[1]

    def compiled(self, config: Config, dataset: Dataset) -> CompiledModel:
        """Returns the compiled functions of an experiment's model.

        Raises:
          UsageError: As `build_model`, or a model of others cannot be trained.
        """
        shape, training = (dataset.image_shape, dataset.classes), config.training
        key = (config.model.model_dump_json(), shape, training.model_dump_json())
        if key not in self._compiled:
            compiled = CompiledModel(build_model(config, *shape), training)
            check_trainable(compiled.model, config.model.name, lambda: compiled.trainer.trace())
            self._compiled[key] = compiled
        return self._compiled[key]


def build_model(config: Config, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Returns an experiment's model with its first weights.

    Raises:
      UsageError: The model is unknown, too deep for the images, or not what it should be, or the
        processor lacks the precision.
    """
    name, precision = config.model.name, config.training.precision
    require(
        precision == "float32" or supports_convolution(precision.removeprefix("mixed_")),
        f"training.precision = {precision} is not allowed here: this processor has no convolution "
        "in that precision; take float32",
    )
    with _dtype_policy(precision):
        return build_network(name, image_shape, classes, seeds.integer(config.seed, "model"))


def first_weights(config: Config, dataset: Dataset) -> np.ndarray:
    """Returns the flat weights float32 `[d]` that an experiment starts from."""
    model = build_model(config, dataset.image_shape, dataset.classes)
    return WeightLayout.of(model).flatten(model.get_weights())


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Builds layers in a precision, and leaves Keras' global policy as it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

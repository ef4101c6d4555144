"""What experiments in one process can share: images, and compiled functions.

Tracing takes longer than many a small experiment. Nothing here depends on a seed, and no function
holds weights, so sharing changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tffl.config import Config, DataConfig
from tffl.core import seeds
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.pixels import BYTES, PixelRange
from tffl.data.build import load_dataset, loading_key
from tffl.data.federation import Dataset
from tffl.engine.augmentation import check_augmentation
from tffl.engine.compiled_model import CompiledModel
from tffl.engine.runtime import supports_convolution
from tffl.models.build import build_network, check_trainable
from tffl.models.normalization import check_normalizable, normalize_input
from tffl.simulation.weights_files import load_weights, other_normalization


class SharedResources:
    """Keeps the last dataset, and what is compiled for every model and training config."""

    def __init__(self) -> None:
        self._dataset: tuple[Any, Dataset] | None = None
        self._compiled: dict[Any, CompiledModel] = {}

    def dataset(self, config: DataConfig) -> Dataset:
        """Returns a dataset as `load_dataset` does."""
        key = loading_key(config)
        if self._dataset is None or self._dataset[0] != key:
            self._dataset = None  # before the next one is loaded: two may not fit into memory
            self._dataset = key, load_dataset(config)
        return self._dataset[1]

    def compiled(self, config: Config, dataset: Dataset) -> CompiledModel:
        """Returns the compiled functions of an experiment's model.

        Raises:
          UsageError: As `build_model`, or a model of others cannot be trained, or the samples
            cannot be augmented or normalized.
        """
        check_augmentation(config.training, dataset)
        training, dtype, pixels = config.training, str(dataset.train_images.dtype), dataset.pixels
        statistics = None
        if config.data.normalization == "per-channel":
            check_normalizable(config.model.name)
            statistics = dataset.channel_statistics
        made = config.model.model_dump_json(exclude={"weights", "head"}), training.model_dump_json()
        key = (*made, dataset.sample_shape, dataset.classes, dtype, pixels, statistics)
        if key not in self._compiled:
            model = build_model(config, dataset.sample_shape, dataset.classes, pixels)
            if statistics is not None:
                normalize_input(model, statistics, pixels)
            compiled = CompiledModel(model, training, dtype, pixels)
            check_trainable(compiled.model, config.model.name, lambda: compiled.trainer.trace())
            self._compiled[key] = compiled
        return self._compiled[key]


def build_model(
    config: Config,
    sample_shape: tuple[int, ...],
    classes: int,
    pixels: PixelRange = BYTES,
    say: Callable[[str], Any] | None = None,
) -> keras.Model:
    """Returns an experiment's model with random weights, or those of its file.

    Args:
      config: Names the model, its precision and the seed.
      sample_shape: Of an image or a feature vector.
      classes: Number of classes.
      pixels: The range of the images. tffl's own models are made for it, others have to be.
      say: As `build_network` takes it.

    Raises:
      UsageError: The model is unknown, too deep for the images, or not what it should be, or the
        processor lacks the precision.
    """
    precision = config.training.precision
    require(
        precision == "float32" or supports_convolution(precision.removeprefix("mixed_")),
        f"training.precision = {precision} is not allowed here: this processor has no convolution "
        "in that precision; take float32",
    )
    with _dtype_policy(precision):
        seed = seeds.integer(config.seed, "model")
        return build_network(config.model, sample_shape, classes, seed, pixels, say)


def first_weights(
    config: Config, dataset: Dataset, say: Callable[[str], Any] | None = None
) -> np.ndarray:
    """Returns the flat weights float32 `[d]` that an experiment starts from.

    Args:
      config: The experiment.
      dataset: Its data.
      say: As `build_network` takes it.
    """
    model = build_model(config, dataset.sample_shape, dataset.classes, dataset.pixels, say)
    if config.model.weights:
        path = Path(config.model.weights).expanduser()
        load_weights(model, path, config.model.head)
        if (difference := other_normalization(path, config.data.normalization)) and say:
            say(difference)
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

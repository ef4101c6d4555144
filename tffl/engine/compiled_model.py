"""The compiled functions of one model: training, evaluation, gradients, heat maps.

They depend on no seed and hold no weights, so that experiments can share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import keras

from tffl.config import TrainingConfig
from tffl.core.layout import WeightLayout
from tffl.core.pixels import BYTES, PixelRange
from tffl.engine.evaluation import Evaluator
from tffl.engine.gradient import Gradient
from tffl.engine.training import Trainer
from tffl.engine.trigger_generator import GeneratorTraining
from tffl.engine.trigger_search import TriggerSearch
from tffl.explain.maps import Explainer


@dataclass(frozen=True)
class CompiledModel:
    """A model and its compiled functions, each compiled when it is first used.

    Attributes:
      model: A built Keras model that ends in logits; its weights are not used.
      training: Optimizer, batch size and precision of the clients.
      dtype: Type of the samples, uint8 or float32.
      pixels: What the model takes for the darkest pixel and the brightest.
    """

    model: keras.Model
    training: TrainingConfig
    dtype: str = "uint8"
    pixels: PixelRange = BYTES

    @cached_property
    def layout(self) -> WeightLayout:
        """The columns of a flat weight vector."""
        return WeightLayout.of(self.model)

    @cached_property
    def trainer(self) -> Trainer:
        """The compiled training of clients."""
        return Trainer(self.model, self.training, self.dtype, self.pixels)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The compiled evaluation of weights."""
        return Evaluator(self.model, self.dtype)

    @cached_property
    def explainer(self) -> Explainer:
        """The compiled class activation maps."""
        return Explainer(self.model, self.pixels)

    @cached_property
    def trigger_search(self) -> TriggerSearch:
        """The compiled descent on the pixels of a trigger."""
        return TriggerSearch(self.model, self.dtype, self.pixels, self.training.batch_size)

    @cached_property
    def generator_training(self) -> GeneratorTraining:
        """The compiled training of a network that makes triggers."""
        return GeneratorTraining(self.model, self.dtype, self.pixels, self.training.batch_size)

    @cached_property
    def gradient(self) -> Gradient:
        """The compiled gradient of the loss at any weights."""
        return Gradient(self.model, self.dtype)

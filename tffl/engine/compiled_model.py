"""What is compiled for one model: training, evaluation, gradients, heat maps.

Nothing here depends on a seed, and no function holds weights, so experiments can share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import keras

from tffl.config import TrainingConfig
from tffl.core.layout import WeightLayout
from tffl.engine.evaluation import Evaluator
from tffl.engine.gradient import Gradient
from tffl.engine.training import Trainer
from tffl.explain.maps import Explainer


@dataclass(frozen=True)
class CompiledModel:
    """A model's structure, and what is compiled for it when it is first needed."""

    model: keras.Model
    training: TrainingConfig

    @cached_property
    def layout(self) -> WeightLayout:
        """Columns of a flat weight vector."""
        return WeightLayout.of(self.model)

    @cached_property
    def trainer(self) -> Trainer:
        """Trains clients."""
        return Trainer(self.model, self.training)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Evaluates weights."""
        return Evaluator(self.model)

    @cached_property
    def explainer(self) -> Explainer:
        """Makes class activation maps."""
        return Explainer(self.model)

    @cached_property
    def gradient(self) -> Gradient:
        """Computes gradients at any weights."""
        return Gradient(self.model)

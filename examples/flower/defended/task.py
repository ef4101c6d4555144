"""The task that the server and the nodes share: the data, the model, and its training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from tffl.config import DataConfig
from tffl.core import seeds
from tffl.data.build import load_dataset
from tffl.data.federation import Dataset
from tffl.data.partition import balanced, iid
from tffl.data.samples import Samples
from tffl.models.build import build_network

SERVER_SAMPLES = 200
"""The number of training images that the server keeps to test nodes' models on."""


@dataclass(frozen=True)
class Task:
    """The settings of `[tool.flwr.app.config]` that server and nodes must agree on."""

    dataset: str
    model: str
    train_limit: int
    learning_rate: float
    local_epochs: int
    seed: int

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> Task:
        """Reads the settings of a run."""
        return cls(
            str(run_config["dataset"]),
            str(run_config["model"]),
            int(run_config["train-limit"]),
            float(run_config["learning-rate"]),
            int(run_config["local-epochs"]),
            int(run_config["seed"]),
        )

    def data(self) -> Dataset:
        """Returns the whole dataset; a real node would have only its own part."""
        return _load(self.dataset)

    def network(self) -> keras.Model:
        """Returns the compiled model with its initial weights, always the same object."""
        return _network(self)

    def server_samples(self) -> Samples:
        """Returns the server's images, which no node has."""
        data, (chosen, _) = self.data(), self._split()
        labels = data.train_labels[chosen]
        return Samples(data.train_images[chosen], labels, data.classes, data.class_names)

    def part(self, number: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels of one of `count` nodes."""
        data, (_, rest) = self.data(), self._split()
        parts = iid(data.train_labels[rest], count, seeds.generator(self.seed, "parts"))
        chosen = rest[parts[number]]
        return data.train_images[chosen], data.train_labels[chosen]

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        labels = self.data().train_labels
        draw = seeds.generator(self.seed, "server samples")
        server = balanced(labels, SERVER_SAMPLES, draw)
        rest = np.setdiff1d(np.arange(len(labels)), server)
        if self.train_limit:
            rest = rest[balanced(labels[rest], self.train_limit, draw)]
        return server, rest

    def train(self, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Trains the network on one node's images."""
        keras.utils.set_random_seed(seed)
        network = self.network()
        for variable in network.optimizer.variables:  # every round starts without momentum
            variable.assign(keras.ops.zeros_like(variable))
        network.optimizer.learning_rate.assign(self.learning_rate)
        network.fit(
            images.astype(np.float32), labels, batch_size=16, epochs=self.local_epochs, verbose=0
        )


@lru_cache(maxsize=1)
def _load(name: str) -> Dataset:
    return load_dataset(DataConfig(dataset=name))


@lru_cache(maxsize=1)
def _network(task: Task) -> keras.Model:
    data = task.data()
    network = build_network(task.model, data.image_shape, data.classes, task.seed)
    network.compile(
        keras.optimizers.Adam(task.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return network

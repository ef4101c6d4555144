"""Central training: weights that federated experiments can start from.

The data are not split: one client holds all of them, and trains as clients do in a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tffl.config import ComponentConfig, Config, FederationConfig
from tffl.core.atomic import check_writable
from tffl.core.errors import TfflError, require
from tffl.core.jsonable import write_json
from tffl.data.build import build_federation, check_prepared
from tffl.models.layers import set_weights
from tffl.models.own import model_options
from tffl.record.environment import environment
from tffl.record.identity import resolved
from tffl.simulation.weights_files import (
    about_path,
    check_weights_file,
    check_weights_path,
    save_weights,
)

Epoch = dict[str, float]
"""`epoch`, and `accuracy` and `loss` on the test set after it."""


@dataclass(frozen=True)
class Pretraining:
    """What is trained, and where the weights go.

    Attributes:
      config: Its data, model, training and seed count; its learning rate may follow a schedule, in
        which an epoch stands for a round.
      epochs: Passes over the training data.
      path: File to write; its ending names the format.
    """

    config: Config
    epochs: int
    path: Path

    @property
    def about(self) -> Path:
        """The JSON file that says how the weights were made."""
        return about_path(self.path)

    def check(self) -> None:
        """Checks, without TensorFlow, what can be checked.

        Raises:
          UsageError: A name or an option does not exist, data are not prepared, or a file exists
            or cannot be written.
        """
        check_weights_path(self.path, "--out")
        for path in (self.path, self.about):
            require(not path.exists(), f"{path} exists: remove it, or give another --out")
        check_writable(self.path)
        model_options(self.config.model)
        if self.config.model.weights:
            check_weights_file(Path(self.config.model.weights).expanduser())
        check_prepared(self.config.data)


def pretrain(
    job: Pretraining,
    after_epoch: Callable[[Epoch], Any],
    say: Callable[[str], Any],
    command: Sequence[str] = (),
) -> list[Epoch]:
    """Trains a model on all training data, and writes its weights.

    Args:
      job: What is trained.
      after_epoch: Called with the accuracy and loss of every epoch.
      say: Called with one line on what was changed about the model.
      command: The command line, to be recorded.

    Returns:
      The accuracy and the loss after every epoch.

    Raises:
      UsageError: The model or the data do not work.
      TfflError: The model's outputs are not finite, or a file cannot be written. The weights of the
        last finished epoch are written then, as they are after Ctrl-C.
    """
    from tffl.engine.placement import LocalDevices
    from tffl.engine.runtime import configure
    from tffl.simulation.shared_resources import SharedResources, first_weights
    from tffl.simulation.training import Training

    job.check()
    config, shared, begin = _central(job), SharedResources(), time.monotonic()
    placement = LocalDevices(configure(config.runtime.devices).devices)
    dataset = shared.dataset(config.data)
    compiled = shared.compiled(config, dataset)
    weights = first_weights(config, dataset, say)
    federation = build_federation(config, dataset, np.empty(0, np.int64))
    training = Training(config, compiled, placement, placement.to_devices(federation.images))
    test, labels = placement.to_devices(dataset.test_images), dataset.test_labels
    history: list[Epoch] = []
    try:
        for epoch in range(1, job.epochs + 1):
            updates = training.clients(epoch, np.array([0]), federation.clients, weights)
            trained = updates.weights(0)
            accuracy, loss = compiled.evaluator.evaluate(trained[None], test, labels, placement)
            if not np.isfinite(accuracy):
                raise TfflError(
                    f"the model's outputs are not finite after epoch {epoch}: take a smaller "
                    f"training.learning_rate than {config.training.learning_rate:g}"
                )
            weights = trained
            history.append({"epoch": epoch, "accuracy": accuracy, "loss": loss})
            after_epoch(history[-1])
    finally:  # also after Ctrl-C, so that no finished epoch is lost
        if history:
            set_weights(compiled.model, compiled.layout.unflatten(weights))
            save_weights(compiled.model, job.path)
            about = {
                "training_samples": len(federation.clients[0]),
                "epochs": history,
                "seconds": round(time.monotonic() - begin, 1),
            }
            write_json(job.about, {**_described(config), **about, **environment(command)})
    return history


def _described(config: Config) -> dict[str, Any]:
    """Returns the settings that decide the weights."""
    return config.model_dump(mode="json", include={"seed", "data", "model", "training"})


def _central(job: Pretraining) -> Config:
    """Returns the experiment of one honest client that holds everything."""
    data = job.config.data.model_copy(
        update={"partition": "iid", "server_shard": False, "server_samples": 0, "shift": "none"}
    )
    training = job.config.training.model_copy(update={"local_epochs": 1})
    config = job.config.model_copy(
        update={
            "data": data,
            "training": training,
            "federation": FederationConfig(clients=1, malicious=0, rounds=job.epochs),
            "attack": ComponentConfig(),
            "defense": ComponentConfig(),
        }
    )
    return resolved(config)

"""The federated loop: what a server and its clients, honest and malicious, do round by round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tffl import seeds
from tffl.attacks import Attack, SuccessSet, attacks
from tffl.config import Config, build
from tffl.data.build import build_federation, load_dataset
from tffl.data.federation import Dataset, Federation
from tffl.defenses import Defense, Server, Verdict, defenses
from tffl.defenses.base import State
from tffl.errors import require
from tffl.federated.evaluation import Evaluator
from tffl.federated.layout import WeightLayout
from tffl.federated.observer import Observer
from tffl.federated.placement import LocalDevices
from tffl.federated.runtime import INTRA_OP_THREADS, Runtime, configure
from tffl.federated.training import LocalTraining, Trainer
from tffl.federated.updates import Updates
from tffl.localize import deviations
from tffl.metrics import detection
from tffl.models import models
from tffl.record.run_directory import MemoryRecorder, RunDirectory, check_store_size


@dataclass(frozen=True)
class Run:
    """What a simulation returns.

    Attributes:
      config: The experiment.
      rounds: One row per round, the columns of `rounds.csv`.
      clients: One row per round and participant, the columns of `clients.csv`.
      summary: What `summary.json` says.
      model: The global model after the last round.
      directory: The run directory, if there is one.
    """

    config: Config
    rounds: pd.DataFrame
    clients: pd.DataFrame
    summary: dict[str, Any]
    model: keras.Model
    directory: Path | None = None


def simulate(
    config: Config | Mapping[str, Any],
    out: Path | str | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    command: Sequence[str] = (),
) -> Run:
    """Runs one experiment.

    Args:
      config: A `Config`, or nested values for one.
      out: Run directory to write; nothing is written without it.
      resume: Continue the run in `out` after its last checkpoint.
      observer: Hears about progress and warnings.
      command: The command line, for `environment.json`.

    Raises:
      UsageError: The experiment is impossible; before round 1.
      TfflError: It failed, for instance because a file cannot be written.
    """
    config = (config if isinstance(config, Config) else build(config)).resolved()
    observer = observer or Observer()
    if out is None:
        require(not resume, "resume needs the run directory")
        experiment = Experiment(config, observer)
        return _play(experiment, MemoryRecorder(), observer)
    if resume:
        directory = RunDirectory.resume(Path(out), config)
        return _play(Experiment(config, observer), directory, observer)
    experiment = Experiment(config, observer)
    directory = RunDirectory.create(Path(out), config, command, experiment.granted())
    return _play(experiment, directory, observer)


def _play(
    experiment: Experiment, recorder: MemoryRecorder | RunDirectory, observer: Observer
) -> Run:
    """Plays the rounds that are missing, as in Algorithm 1 of the papers."""
    config = experiment.config
    last, weights, state = experiment.begin(recorder, observer)
    observer.start(config.federation.rounds, last + 1)
    for round in range(last + 1, config.federation.rounds + 1):
        weights, state = experiment.play_round(round, weights, state, recorder, observer)
    return experiment.finish(weights, recorder)


class Experiment:
    """Everything that is fixed before round 1, checked; and one method that plays a round."""

    def __init__(self, config: Config, observer: Observer) -> None:
        self.config = config
        self.attack: Attack = attacks.create(config.attack.name, config.attack.options)
        self.defense: Defense = defenses.create(config.defense.name, config.defense.options)
        build_model = models[config.model.name]
        self.runtime: Runtime = configure(config.runtime.devices)
        if self.runtime.intra_op_threads != INTRA_OP_THREADS:
            observer.warning(
                "TensorFlow was started before tffl, with several threads inside an operation: "
                "results of this process are not reproducible to the last bit"
            )
        self.placement = LocalDevices(self.runtime.devices)

        observer.phase(f"preparing {config.data.dataset}")
        dataset = load_dataset(config.data)
        self.attack.check(dataset)
        self.malicious = self._draw_malicious()
        honest = build_federation(config, dataset, self.attack.reserve(dataset))
        federation = self.attack.poison(honest, self.malicious, config.seed)
        del honest, dataset

        observer.phase(f"building {config.model.name}")
        with _dtype_policy(config.training.precision):
            self.model: keras.Model = build_model(
                federation.dataset.image_shape,
                federation.dataset.classes,
                seed=seeds.integer(config.seed, "model"),
            )
        self.layout = WeightLayout.of(self.model)
        self.defense.check(config.federation.participant_count, self.layout)
        check_store_size(config, config.federation.participant_count, self.layout.size)
        self.server = Server(self.model, self.layout, config.federation.clients, config.seed)

        # Measured without an attacker too: what the success inputs yield by themselves.
        self.success: SuccessSet | None = self.attack.success_set(federation, config.seed)
        self._settle(federation)
        self.trainer = Trainer(self.model, config.training)
        self.evaluator = Evaluator(self.model)

    def _draw_malicious(self) -> np.ndarray:
        federation = self.config.federation
        count = 0 if self.config.attack.name == "none" else federation.malicious_count
        generator = seeds.generator(self.config.seed, "malicious")
        return np.sort(generator.choice(federation.clients, count, replace=False))

    def _settle(self, federation: Federation) -> None:
        """Puts the images on the devices and forgets the copies they came from."""
        self.images = self.placement.resident(federation.images)
        self.test_images = self.placement.resident(federation.dataset.test_images)
        if self.success is not None:
            self._success_images = self.placement.resident(self.success.images)
        self.federation = replace(
            federation,
            images=np.empty((0, *federation.images.shape[1:]), np.uint8),
            dataset=_without_images(federation.dataset),
        )

    def granted(self) -> dict[str, Any]:
        """Returns what attack and defense were allowed to know, for `environment.json`."""
        return {
            "attack": list(self.attack.knowledge),
            "defense": list(self.defense.needs),
            "runtime": {
                "devices": list(self.runtime.devices),
                "intra_op_threads": self.runtime.intra_op_threads,
            },
        }

    def begin(
        self, recorder: MemoryRecorder | RunDirectory, observer: Observer
    ) -> tuple[int, np.ndarray, State]:
        """Returns the last finished round, the global weights and the defense's state."""
        checkpoint = recorder.load_checkpoint(observer.warning)
        if checkpoint is not None:
            return checkpoint
        weights = self.layout.flatten(self.model.get_weights())
        if self.config.federation.server_epochs:
            observer.phase("training the server's first model")
            weights = weights + self._train_server(weights)
        return 0, weights, self.defense.init(self.server)

    def _train_server(self, weights: np.ndarray) -> np.ndarray:
        config, data = self.config, self.federation.server
        assert data is not None  # the config demands a shard for server_epochs
        job = LocalTraining.draw(
            data,
            config.federation.server_epochs,
            config.training.learning_rate,
            seed=config.seed,
            round=0,
            client=config.federation.clients,
        )
        return self.trainer.train_all(weights, self.images, [job], self.placement)[0]

    def play_round(
        self,
        round: int,
        weights: np.ndarray,
        state: State,
        recorder: MemoryRecorder | RunDirectory,
        observer: Observer,
    ) -> tuple[np.ndarray, State]:
        """Plays one round and records it; returns the new global weights and defense state."""
        config, clock = self.config, Stopwatch()
        clients = self._draw_participants(round)
        malicious = np.isin(clients, self.malicious)

        with clock.measure("train"):
            updates = self._train_round(round, clients, weights)
        with clock.measure("attack"):
            self.attack.tamper(updates, malicious, config.seed)
        with clock.measure("defense"):
            self.model.set_weights(self.layout.unflatten(weights))
            verdict, state = self.defense.judge(updates, self.server, state)
            weights = weights + config.federation.server_learning_rate * verdict.aggregate
            weights = weights.astype(np.float32)
        with clock.measure("evaluate"):
            scores = self._evaluate(weights)

        row = {"round": round, **scores, **_judged(verdict, malicious), **clock.seconds}
        names = [entry.name for entry in self.layout.entries]
        recorder.store_deviations(round, clients, deviations(updates), names)
        recorder.store_updates(updates)
        recorder.write_round(row, _client_rows(round, updates, verdict, malicious))
        if round % config.record.checkpoint_every == 0 or round == config.federation.rounds:
            recorder.save_checkpoint(round, weights, state)
        observer.round(row)
        return weights, state

    def _draw_participants(self, round: int) -> np.ndarray:
        federation = self.config.federation
        generator = seeds.generator(self.config.seed, "participants", round)
        drawn = generator.choice(federation.clients, federation.participant_count, replace=False)
        return np.sort(drawn)

    def _train_round(self, round: int, clients: np.ndarray, weights: np.ndarray) -> Updates:
        config = self.config
        rate = config.training.learning_rate_of(round, config.federation.rounds)
        jobs = [
            LocalTraining.draw(
                self.federation.clients[client],
                config.training.local_epochs,
                rate,
                seed=config.seed,
                round=round,
                client=int(client),
            )
            for client in clients
        ]
        counts = np.array([len(job.data) for job in jobs], dtype=np.int64)
        deltas = self.trainer.train_all(weights, self.images, jobs, self.placement)
        return Updates(round, clients, counts, weights, deltas, self.layout)

    def _evaluate(self, weights: np.ndarray) -> dict[str, float | None]:
        labels = self.federation.dataset.test_labels
        accuracy, loss = self.evaluator.evaluate(weights, self.test_images, labels, self.placement)
        result: dict[str, float | None] = {"accuracy": accuracy, "loss": loss}
        if self.success is None:
            return {**result, "attack_success": None, "attack_loss": None}
        success, attack_loss = self.evaluator.evaluate(
            weights, self._success_images, self.success.targets, self.placement
        )
        return {**result, "attack_success": success, "attack_loss": attack_loss}

    def finish(self, weights: np.ndarray, recorder: MemoryRecorder | RunDirectory) -> Run:
        """Writes what comes after the last round, and returns the run."""
        self.model.set_weights(self.layout.unflatten(weights))
        rounds, clients = recorder.frames()
        summary = self._summarize(rounds)
        recorder.finish(self.model, summary)
        directory = recorder.path if isinstance(recorder, RunDirectory) else None
        return Run(self.config, rounds, clients, summary, self.model, directory)

    def _summarize(self, rounds: pd.DataFrame) -> dict[str, Any]:
        final = rounds.iloc[-1]
        last = ("accuracy", "loss", "attack_success", "attack_loss")
        means = ("recall", "precision", "fpr", "f1", "balanced_accuracy", "auc")
        return {
            "dataset": self.config.data.dataset,
            "model": self.config.model.name,
            "parameters": self.layout.size,
            "attack": self.config.attack.name,
            "defense": self.config.defense.name,
            "rounds": len(rounds),
            "clients": self.config.federation.clients,
            "malicious_clients": self.malicious.tolist(),
            **{name: _number(final[name]) for name in last},
            "attack_success_source": self.success.source if self.success else None,
            "attack_success_images": len(self.success.targets) if self.success else None,
            **{f"mean_{name}": _number(rounds[name].astype(float).mean()) for name in means},
            "rejected": int(rounds["rejected"].sum()),
        }


class Stopwatch:
    """Measures the phases of a round."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Stores how long the block takes as `phase_seconds`."""
        began = time.perf_counter()
        yield
        self.seconds[f"{phase}_seconds"] = round(time.perf_counter() - began, 4)


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Builds layers in a precision, and leaves Keras' global policy as it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _without_images(dataset: Dataset) -> Dataset:
    nothing = np.empty((0, *dataset.image_shape), np.uint8)
    return replace(dataset, train_images=nothing, test_images=nothing)


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _judged(verdict: Verdict, malicious: np.ndarray) -> dict[str, Any]:
    accepted = int(verdict.accepted.sum())
    return {
        "participants": len(malicious),
        "accepted": accepted,
        "rejected": len(malicious) - accepted,
        "threshold": verdict.threshold,
        **detection(malicious, verdict.convicted, verdict.scores),
    }


def _client_rows(
    round: int, updates: Updates, verdict: Verdict, malicious: np.ndarray
) -> list[dict[str, Any]]:
    norms = updates.norms()
    return [
        {
            "round": round,
            "client": int(client),
            "samples": int(updates.sample_counts[row]),
            "malicious": int(malicious[row]),
            "score": float(verdict.scores[row]),
            "flagged": int(verdict.flagged[row]),
            "accepted": int(verdict.accepted[row]),
            "weight": float(verdict.weights[row]),
            "update_norm": float(norms[row]),
            "reason": verdict.reasons[row],
        }
        for row, client in enumerate(updates.client_ids)
    ]

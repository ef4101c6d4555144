"""The federated loop: what a server and its clients, honest and malicious, do round by round."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tffl.attacks import Attack, SuccessSet, create_attack
from tffl.attacks.adversary import Adversary
from tffl.config import Config, as_config
from tffl.core import seeds, states
from tffl.core.errors import TfflError, require
from tffl.core.updates import Updates
from tffl.core.weighting import weighed
from tffl.data.build import build_federation
from tffl.data.federation import Dataset, Federation
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA, Root, Samples
from tffl.defenses import Defense, Server, Verdict, create_defense
from tffl.defenses.base import State
from tffl.engine import on_disk
from tffl.engine.observer import Observer
from tffl.engine.placement import LocalDevices
from tffl.engine.runtime import INTRA_OP_THREADS, Runtime, configure
from tffl.engine.stopwatch import Stopwatch
from tffl.engine.training import LocalTraining
from tffl.engine.voting import Certificates, majority_vote
from tffl.models.layers import set_weights
from tffl.record.identity import resolved
from tffl.record.lock import locked
from tffl.record.recorder import MemoryRecorder, Recorder
from tffl.record.rounds import RoundRecord
from tffl.record.writer import RunWriter, check_store_size, make_folder, refuse_occupied
from tffl.simulation.objects import Arrays, described
from tffl.simulation.participants import draw_malicious, draw_participants
from tffl.simulation.placement import place
from tffl.simulation.unused import unused_settings
from tffl.simulation.workshop import Workshop, first_weights

LISTED = 1000
"""The most sampled clients whose samples are counted in `split.csv`."""

SAMPLES = 2000
"""The most images that the server looks at clients' models with; it need not keep more."""


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

    def __repr__(self) -> str:
        """Says what was run and how it ended, in one line."""
        names = f"{self.config.attack.name} against {self.config.defense.name}"
        where = f", in {self.directory}" if self.directory else ""
        return f"<Run: {names} on {self.config.data.dataset}, {self._ended()}{where}>"

    def _repr_html_(self) -> str:
        """Returns the last rounds as a table, for notebooks."""
        shown = ["round", "accuracy", "attack_success", "recall", "precision", "fpr", "rejected"]
        table = (
            self.rounds[shown]
            .tail(10)
            .to_html(index=False, na_rep="–", float_format="{:.3f}".format)
        )
        return f"<p>{html.escape(repr(self))}</p>{table}"

    def _ended(self) -> str:
        last = self.rounds.iloc[-1]
        figures = {"accuracy": last["accuracy"], "attack success": last["attack_success"]}
        told = [f"{name} {value:.1%}" for name, value in figures.items() if pd.notna(value)]
        return ", ".join([f"{len(self.rounds)} rounds", *told])


def simulate(
    config: Config | Mapping[str, Any] | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    command: Sequence[str] = (),
    workshop: Workshop | None = None,
    attack: Attack | str | None = None,
    defense: Defense | str | None = None,
    model: keras.Model | Callable[..., keras.Model] | str | None = None,
    dataset: Dataset | Arrays | str | None = None,
) -> Run:
    """Runs one experiment.

    Args:
      config: A `Config`, nested values for one, or the path of a TOML file.
      out: Run directory to write; nothing is written without it.
      resume: Continue the run in `out` after its last checkpoint; with another number of rounds
        than it began with, it ends there.
      observer: Hears about progress and warnings.
      command: The command line, for `environment.json`.
      workshop: Shares images and compiled functions with other calls. A later call with the same
        one also overwrites the weights of the returned model.
      attack: An attack, or the name of one, in the place of the config's.
      defense: A defense, or the name of one.
      model: A Keras model, whose weights are the first ones; a function (image_shape, classes) →
        model; or the name of one.
      dataset: A `Dataset`; `(x_train, y_train, x_test, y_test)`, images uint8 `[N, height, width,
        channels]` and labels from 0 on; or the name of one.

    Raises:
      UsageError: The experiment is impossible; before round 1.
      TfflError: It failed, for instance because a file cannot be written.
    """
    config = described(as_config(config), attack, defense, model, dataset)
    observer = observer or Observer()
    if not resume:
        for line in unused_settings(config):
            observer.warning(line)
    return carry_out(config, out, resume, observer, command, workshop)


def carry_out(
    config: Config,
    out: Path | str | None,
    resume: bool,
    observer: Observer,
    command: Sequence[str],
    workshop: Workshop | None = None,
) -> Run:
    """Does what `simulate` does, without a word on settings that change nothing."""
    config = resolved(config)
    if out is None:
        require(not resume, "resume needs the run directory")
        experiment = Experiment(config, observer, workshop, trains=True)
        return _play(experiment, MemoryRecorder(), observer)
    out = Path(out)
    if resume:
        RunWriter.resume(out, config)
        with locked(out, observer.warning):
            experiment = Experiment(config, observer, workshop, trains=True)
            writer = RunWriter.resume(out, config)
            writer.write_config()
            return _play(experiment, writer, observer)
    refuse_occupied(out, config)
    experiment = Experiment(config, observer, workshop, trains=True)
    make_folder(out)
    with locked(out, observer.warning):
        writer = RunWriter.create(out, config, command, experiment.granted())
        return _play(experiment, writer, observer)


def _play(experiment: Experiment, recorder: Recorder, observer: Observer) -> Run:
    """Plays the rounds that are missing, as in Algorithm 1 of the papers."""
    config = experiment.config
    if split := experiment.split():
        recorder.write_table("split.csv", split)
    last, weights, memory = experiment.begin(recorder, observer)
    observer.start(config.federation.rounds, last + 1)
    for round in range(last + 1, config.federation.rounds + 1):
        weights, memory = experiment.play_round(round, weights, memory, recorder, observer)
    return experiment.finish(weights, memory, recorder)


class Experiment:
    """Everything that is fixed before round 1, checked; and one method that plays a round."""

    def __init__(
        self,
        config: Config,
        observer: Observer,
        workshop: Workshop | None = None,
        draw: int = 0,
        trains: bool = False,
    ) -> None:
        """Prepares an experiment.

        Args:
          config: Resolved.
          observer: Hears about progress and warnings.
          workshop: Shares images and compiled functions with other experiments.
          draw: Draws other malicious clients than the experiment's own, unless 0.
          trains: Whether clients are going to be trained, by a cluster if the config wants one.
        """
        workshop = workshop or Workshop()
        self.config = config
        self.attack: Attack = create_attack(config.attack.name, config.attack.options)
        self.defense: Defense = create_defense(config.defense.name, config.defense.options)
        self.runtime: Runtime = configure(config.runtime.devices)
        if self.runtime.intra_op_threads != INTRA_OP_THREADS:
            observer.warning(
                "TensorFlow was started before tffl, with several threads inside an operation: "
                "results of this process are not reproducible to the last bit"
            )
        devices = self.runtime.devices
        self.placement = (
            place(config.runtime, devices, observer) if trains else LocalDevices(devices)
        )

        observer.phase(f"preparing {config.data.dataset}")
        dataset = workshop.dataset(config.data)
        self.attack.check(dataset)
        self.malicious = draw_malicious(config, draw)
        self.attack.check_clients(len(self.malicious), config.federation.participant_count)
        honest = build_federation(config, dataset, self.attack.reserve(dataset))
        federation = self.attack.poison(honest, self.malicious, config.seed)
        self.honest_clients = honest.clients

        observer.phase(f"building {config.model.name}")
        self.tools = workshop.tools(config, dataset)
        self.model: keras.Model = self.tools.model
        self.layout = self.tools.layout
        self.first_weights = first_weights(config, dataset)
        del honest, dataset
        self.server = self._make_server(federation)
        self.check_defense(self.defense, config.defense.name)
        require(
            self.defense.models == 1 or not config.record.store_updates,
            f"{config.defense.name} keeps {self.defense.models} models, and updates of several "
            "models cannot be stored: leave out record.store_updates",
        )
        check_store_size(config, config.federation.participant_count, self.layout.size)
        self.adversary = Adversary(
            self.model, config, federation, self.malicious, self.tools, self.server.samples
        )

        # Measured without an attacker too: what the success inputs yield by themselves.
        self.success: SuccessSet | None = self.attack.success_set(federation, config.seed)
        self.groups = self.defense.groups(self.server)
        self._ruined = False
        self._settle(federation)
        self._warn_of_idle_attackers(observer)

    def check_defense(self, defense: Defense, name: str) -> None:
        """Raises `UsageError` if a defense cannot work in this experiment."""
        defense.check(self.config.federation.participant_count, self.layout)
        require(
            ROOT_DATA not in defense.granted() or self.server.root is not None,
            f"{name} needs samples of the server's own: set data.server_samples, such as 100, or "
            "data.server_shard = true",
        )
        defense.check_server(self.server)

    def poisoned_clients(self) -> list[int]:
        """Returns the clients whose data the attack has changed."""
        now, honest = self.federation.clients, self.honest_clients
        return [client for client in self.malicious.tolist() if now[client] != honest[client]]

    def acting_clients(self) -> list[int]:
        """Returns the malicious clients that do anything when they take part in an attack.

        An attack on data may find nothing to change with some of them, such as no image of the
        class whose labels it flips. They train honestly, but count as malicious.
        """
        poisoned = self.poisoned_clients()
        if self.attack.changes_updates() or not poisoned:
            return [int(client) for client in self.malicious]
        return poisoned

    def _warn_of_idle_attackers(self, observer: Observer) -> None:
        acting, malicious = len(self.acting_clients()), len(self.malicious)
        if acting < malicious:
            observer.warning(
                f"{self.config.attack.name} changes the data of {acting} of {malicious} malicious "
                "clients: the others hold nothing that it could change and train honestly, but "
                "recall counts them as malicious all the same"
            )

    def split(self) -> list[dict[str, Any]]:
        """Returns, for each client and class, the samples as dealt and as trained: `split.csv`.

        Nothing if there are more sampled clients than `LISTED`: the tables of a run do not grow
        with those that never take part.
        """
        if self.config.data.partition == "sampled" and len(self.honest_clients) > LISTED:
            return []
        names = self.federation.dataset.class_names
        dealt = replace(self.federation, clients=self.honest_clients).class_counts()
        trained = self.federation.class_counts()
        return [
            {
                "client": client,
                "class": name,
                "samples": int(dealt[client, label]),
                "trained": int(trained[client, label]),
            }
            for client in range(len(dealt))
            for label, name in enumerate(names)
        ]

    def _settle(self, federation: Federation) -> None:
        """Puts the images on the devices and forgets the copies they came from."""
        self.images = self.placement.pool(federation.images, self.config)
        self.test_images = self.placement.resident(federation.dataset.test_images)
        if self.success is not None:
            self._success_images = self.placement.resident(self.success.images)
        self.federation = replace(
            federation,
            images=np.empty((0, *federation.images.shape[1:]), np.uint8),
            dataset=_without_images(federation.dataset),
        )

    def _make_server(self, federation: Federation) -> Server:
        return Server(
            self.model,
            self.layout,
            self.config.federation.clients,
            self.config.seed,
            self._root(federation),
            self.config.federation.server_learning_rate,
            self._samples(federation),
            self.tools.explainer,
        )

    def _samples(self, federation: Federation) -> Samples:
        """Returns what a defense may look at models with, at most `SAMPLES` images."""
        data, classes = federation.server, federation.dataset.classes
        if data is not None:
            pool, images, labels = data.indices, federation.images, data.labels
        else:
            images, labels = federation.dataset.test_images, federation.dataset.test_labels
            pool = np.arange(len(labels))
        generator = seeds.generator(self.config.seed, "samples")
        rows = np.sort(generator.permutation(len(pool))[:SAMPLES])
        names = federation.dataset.class_names
        return Samples(images[pool[rows]], labels[rows], classes, names)

    def _root(self, federation: Federation) -> Root | None:
        """Returns what a defense gets of the server's samples."""
        if federation.server is None:
            return None

        def train(start: np.ndarray, round: int) -> np.ndarray:
            epochs = self.config.training.local_epochs
            return self._train_server(start, epochs, self._learning_rate(round), round)

        images = federation.images[federation.server.indices]
        return Root(images, federation.server.labels, train)

    def granted(self) -> dict[str, Any]:
        """Returns what attack and defense were allowed to know, for `environment.json`."""
        source = "the test set" if self.server.root is None else "the server's root data"
        defense = (
            f"{word} from {source}" if word in (PROBE_DATA, AUXILIARY_DATA) else word
            for word in self.defense.granted()
        )
        return {
            "attack": list(self.attack.granted()),
            "defense": list(defense),
            "runtime": {
                "devices": list(self.runtime.devices),
                "intra_op_threads": self.runtime.intra_op_threads,
            },
        }

    def begin(self, recorder: Recorder, observer: Observer) -> tuple[int, np.ndarray, Memory]:
        """Returns the last finished round, its global weights `[models, d]`, and the memories."""
        checkpoint = recorder.load_checkpoint(observer.warning)
        if checkpoint is not None:
            round, weights, tensors = checkpoint
            expected = (self.defense.models, self.layout.size)
            if weights.shape != expected:
                raise TfflError(
                    f"the checkpoint of round {round} holds weights {weights.shape}, but those of "
                    f"{self.config.model.name} are {expected}: config.toml has been changed, or "
                    "the model is another one"
                )
            return round, weights, Memory.of(tensors)
        start = self.first_weights
        if self.config.federation.server_epochs:
            observer.phase("training the server's first model")
            epochs, rate = self.config.federation.server_epochs, self.config.training.learning_rate
            start = start + self._train_server(start, epochs, rate, round=0)
        models = self.defense.models
        known = states.join([self.attack.init(self.adversary)] * models)
        memory = Memory(known, self.defense.init(self.server))
        return 0, np.repeat(start[None], models, axis=0), memory

    def _train_server(
        self, weights: np.ndarray, epochs: int, learning_rate: float, round: int
    ) -> np.ndarray:
        data, clients = self.federation.server, self.config.federation.clients
        assert data is not None  # the config demands data for server_epochs, a defense its root
        job = LocalTraining.draw(
            data, epochs, learning_rate, seed=self.config.seed, round=round, client=clients
        )
        return self.tools.trainer.train_all(weights, self.images, [job], self.placement)[0]

    def play_round(
        self,
        round: int,
        weights: np.ndarray,
        memory: Memory,
        recorder: Recorder,
        observer: Observer,
    ) -> tuple[np.ndarray, Memory]:
        """Plays one round and records it; returns the new global weights and memory."""
        config, clock, record = self.config, Stopwatch(), RoundRecord()
        weights = weights.copy()
        for model, clients in self._draw_participants(round):
            with clock.measure("train"):
                updates = self.train_round(round, clients, weights[model])
            with clock.measure("attack"):
                known = states.part(memory.attack, model)
                malicious, known = self.attack_updates(updates, known)
            with clock.measure("defense"):
                verdict, state = self.judge(updates, memory.defense)
                step = config.federation.server_learning_rate * verdict.aggregate
                weights[model] += step.astype(np.float32)
            memory = Memory(states.replaced(memory.attack, model, known), state)
            record.add(updates, verdict, malicious)
            recorder.store_updates(updates)
            if self.defense.models == 1:
                recorder.store_pictures(round, updates.client_ids, verdict.pictures)
        with clock.measure("evaluate"):
            scores = self.evaluate(weights)
        self._warn_of_ruin(round, scores, observer)

        row = {"round": round, **scores, **record.judged(), **clock.seconds}
        names = [entry.name for entry in self.layout.entries]
        recorder.store_deviations(round, *record.deviations(), names)
        recorder.write_round(row, record.client_rows(round))
        for listener in recorder.listeners:
            listener.round_written(round)
        if round % config.record.checkpoint_every == 0 or round == config.federation.rounds:
            recorder.save_checkpoint(round, weights, memory.tensors())
        observer.round(row)
        return weights, memory

    def attack_updates(self, updates: Updates, state: State) -> tuple[np.ndarray, State]:
        """Lets the attackers overwrite their rows and claims; returns which ones, bool `[n]`."""
        malicious = np.isin(updates.client_ids, self._attackers(updates.round))
        if not self.attack.active(updates.round):
            return malicious, state
        counts = updates.sample_counts
        counts[malicious] = self.attack.claimed(counts[malicious])
        return malicious, self.attack.tamper(updates, malicious, self.adversary, state)

    def _attackers(self, round: int) -> np.ndarray:
        """Returns the ids of the clients that attack in a round."""
        return self.malicious if self.attack.active(round) else self.malicious[:0]

    def judge(
        self, updates: Updates, state: State, defense: Defense | None = None
    ) -> tuple[Verdict, State]:
        """Lets a defense, by default the experiment's own, judge a round."""
        set_weights(self.model, self.layout.unflatten(updates.start))
        return (defense or self.defense).judge(self.received(updates), self.server, state)

    def received(self, updates: Updates) -> Updates:
        """Returns a round with what the clients' claims count for."""
        counts = weighed(updates.sample_counts, self.config.federation.weighting)
        return replace(updates, sample_counts=counts)

    def _draw_participants(self, round: int) -> list[tuple[int, np.ndarray]]:
        """Returns each global model that is trained this round, and the ids of its clients."""
        generator = seeds.generator(self.config.seed, "participants", round)
        clients = draw_participants(self.config.federation, self.malicious, generator)
        group = self.groups[clients]
        return [(int(model), clients[group == model]) for model in np.unique(group)]

    def _learning_rate(self, round: int) -> float:
        return self.config.training.learning_rate_of(round, self.config.federation.rounds)

    def train_round(self, round: int, clients: np.ndarray, weights: np.ndarray) -> Updates:
        """Trains some clients, given their ids int64 `[n]`, from global weights `[d]`."""
        data = self.federation.clients if self.attack.active(round) else self.honest_clients
        jobs = [
            LocalTraining.draw(
                data[client],
                self.config.training.local_epochs,
                self._learning_rate(round),
                seed=self.config.seed,
                round=round,
                client=int(client),
            )
            for client in clients
        ]
        counts = np.array([len(job.data) for job in jobs], dtype=np.int64)
        out = None
        if self.config.runtime.updates_on_disk:
            out = on_disk.empty(len(jobs), self.layout.size)
        matrix = self.tools.trainer.train_all(weights, self.images, jobs, self.placement, out)
        return Updates(round, clients, counts, weights.copy(), matrix, self.layout)

    def evaluate(self, weights: np.ndarray) -> dict[str, float | None]:
        """Returns accuracy, loss, attack success and its loss of global weights `[models, d]`.

        None where there is no attack success to measure, NaN where outputs are not finite.
        """
        labels = self.federation.dataset.test_labels
        accuracy, loss = self.tools.evaluator.evaluate(
            weights, self.test_images, labels, self.placement
        )
        result: dict[str, float | None] = {"accuracy": accuracy, "loss": loss}
        if self.success is None:
            return {**result, "attack_success": None, "attack_loss": None}
        success, attack_loss = self.tools.evaluator.evaluate(
            weights, self._success_images, self.success.targets, self.placement
        )
        return {**result, "attack_success": success, "attack_loss": attack_loss}

    def _warn_of_ruin(
        self, round: int, scores: Mapping[str, float | None], observer: Observer
    ) -> None:
        """Warns in the first round in which outputs of the global model are not finite."""
        undefined = [
            name.replace("_", " ")
            for name, value in scores.items()
            if value is not None and math.isnan(value)
        ]
        if undefined and not self._ruined:
            observer.warning(
                f"round {round}: outputs of the global model are not finite (NaN or infinite), so "
                f"that its {', '.join(undefined)} are undefined and left empty"
            )
        self._ruined = bool(undefined)

    def finish(self, weights: np.ndarray, memory: Memory, recorder: Recorder) -> Run:
        """Writes what comes after the last round, and returns the run."""
        rounds, clients = recorder.frames()
        summary = self._summarize(rounds)
        if certificates := self._certify(weights):
            summary |= {"certified_accuracy": certificates.accuracy()}
            recorder.write_table("certificates.csv", certificates.rows())
        model = self._global_model(weights)
        recorder.finish(model, summary, self.defense.exports(self.server, memory.defense))
        return Run(self.config, rounds, clients, summary, model, recorder.path)

    def _certify(self, weights: np.ndarray) -> Certificates | None:
        """Returns what the defense proves about the test predictions, if it does."""
        if self.defense.models == 1:
            return None
        votes = self.tools.evaluator.votes(weights, self.test_images, self.placement)
        return Certificates(votes, self.federation.dataset.test_labels)

    def _global_model(self, weights: np.ndarray) -> keras.Model:
        set_weights(self.model, self.layout.unflatten(weights[0]))
        if len(weights) == 1:
            return self.model
        return majority_vote(self.model, [self.layout.unflatten(row) for row in weights])

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
            "acting_clients": self.acting_clients(),
            **{name: _number(final[name]) for name in last},
            "attack_success_source": self.success.source if self.success else None,
            "attack_success_images": len(self.success.targets) if self.success else None,
            **{f"mean_{name}": _number(rounds[name].astype(float).mean()) for name in means},
            "rejected": int(rounds["rejected"].sum()),
        }


@dataclass(frozen=True)
class Memory:
    """What both sides remember from round to round.

    Attributes:
      attack: What the attackers remember of each global model, by its number.
      defense: What the defense does.
    """

    attack: State
    defense: State

    def tensors(self) -> dict[str, np.ndarray]:
        """Returns both in one mapping, for a checkpoint."""
        sides = (("attack", self.attack), ("defense", self.defense))
        return {f"{side}/{key}": state[key] for side, state in sides for key in state}

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Memory:
        """Reads what `tensors` returned."""

        def side(name: str) -> State:
            keys = (key for key in tensors if key.startswith(f"{name}/"))
            return {key.removeprefix(f"{name}/"): tensors[key] for key in keys}

        return cls(side("attack"), side("defense"))


def _without_images(dataset: Dataset) -> Dataset:
    nothing = np.empty((0, *dataset.image_shape), np.uint8)
    return replace(dataset, train_images=nothing, test_images=nothing)


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)

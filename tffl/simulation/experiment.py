"""Everything that is fixed before round 1, and how a round is played."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import keras
import numpy as np

from tffl.attacks import Attack, SuccessSet, create_attack
from tffl.attacks.adversary import Adversary
from tffl.callbacks.base import Group, Round
from tffl.config import Config
from tffl.core import seeds, states
from tffl.core.errors import TfflError, require
from tffl.core.updates import Updates
from tffl.core.weighting import weighted_counts
from tffl.data.build import build_federation
from tffl.data.federation import Dataset, Federation
from tffl.data.fingerprint import fingerprint
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA
from tffl.defenses import Defense, Server, Verdict, create_defense
from tffl.defenses.base import State
from tffl.engine import on_disk
from tffl.engine.observer import Observer
from tffl.engine.placement import LocalDevices
from tffl.engine.runtime import INTRA_OP_THREADS, Runtime, configure
from tffl.engine.stopwatch import Stopwatch
from tffl.engine.training import LocalTraining
from tffl.engine.voting import Certificates, majority_model
from tffl.models.layers import set_weights
from tffl.record.recorder import Recorder
from tffl.record.rounds import client_rows, judged
from tffl.record.tables import as_written
from tffl.record.writer import check_store_size
from tffl.simulation.memory import Memory
from tffl.simulation.owned import root_of, samples_of
from tffl.simulation.participants import draw_malicious, draw_participants
from tffl.simulation.placement import place
from tffl.simulation.run import Run
from tffl.simulation.shared_resources import SharedResources, first_weights
from tffl.simulation.split_table import split_table
from tffl.simulation.summary import summarize


class Experiment:
    """Everything that is fixed before round 1, checked; and one method that plays a round."""

    def __init__(
        self,
        config: Config,
        observer: Observer,
        shared: SharedResources | None = None,
        draw: int = 0,
        trains: bool = False,
    ) -> None:
        """Prepares and checks it.

        Args:
          config: Resolved.
          observer: Hears about progress and warnings.
          shared: Shares images and compiled functions with other experiments.
          draw: Draws other malicious clients than the experiment's own, unless 0.
          trains: Whether clients are going to be trained, by a cluster if the config wants one.
        """
        shared = shared or SharedResources()
        self.config = config
        self.attack: Attack = create_attack(config.attack.name, config.attack.options)
        self.defense: Defense = create_defense(config.defense.name, config.defense.options)
        self.runtime: Runtime = configure(config.runtime.devices)
        _warn_of_threads(self.runtime, observer)
        self.placement = self._place(observer) if trains else LocalDevices(self.runtime.devices)

        observer.phase(f"preparing {config.data.dataset}")
        dataset = shared.dataset(config.data)
        self.data_fingerprint = fingerprint(dataset)
        self.attack.check(dataset)
        self.malicious = draw_malicious(config, draw)
        self.attack.check_clients(len(self.malicious), config.federation.participant_count)
        honest = build_federation(config, dataset, self.attack.reserve(dataset))
        federation = self.attack.poison(honest, self.malicious, config.seed)
        self.honest_clients = honest.clients

        observer.phase(f"building {config.model.name}")
        self.compiled = shared.compiled(config, dataset)
        self.model: keras.Model = self.compiled.model
        self.layout = self.compiled.layout
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
            self.model, config, federation, self.malicious, self.compiled, self.server.samples
        )

        # Measured without an attacker too: what the success inputs yield by themselves.
        self.success: SuccessSet | None = self.attack.success_set(federation, config.seed)
        self.groups = self.defense.groups(self.server)
        self._ruined = False
        self._settle(federation)
        self._warn_of_idle_attackers(observer)

    def _place(self, observer: Observer) -> LocalDevices:
        return place(self.config.runtime, self.runtime.devices, observer)

    def check_defense(self, defense: Defense, name: str) -> None:
        """Raises `UsageError` if a defense cannot work in this experiment."""
        defense.check(self.config.federation.participant_count, self.layout)
        samples = self.server.samples
        require(
            (samples is not None and samples.images.ndim == 4)
            or not {PROBE_DATA, AUXILIARY_DATA} & set(defense.declared_knowledge()),
            f"{name} looks at images, and {self.config.data.dataset} holds feature vectors: choose "
            "a defense that judges updates alone, such as multi-krum or update-consensus",
        )
        require(
            ROOT_DATA not in defense.declared_knowledge() or self.server.root is not None,
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
        """Returns, for each client and class, the samples as dealt and as trained: `split.csv`."""
        dealt = replace(self.federation, clients=self.honest_clients)
        return split_table(dealt, self.federation, self.config.data.partition)

    def _settle(self, federation: Federation) -> None:
        """Puts the images on the devices and forgets the copies they came from."""
        self.images = self.placement.training_images(federation.images, self.config)
        self.test_images = self.placement.to_devices(federation.dataset.test_images)
        if self.success is not None:
            self._success_images = self.placement.to_devices(self.success.images)
        self.federation = replace(
            federation,
            images=_none_of(federation.images),
            dataset=_without_images(federation.dataset),
        )

    def _make_server(self, federation: Federation) -> Server:
        return Server(
            self.model,
            self.layout,
            self.config.federation.clients,
            self.config.seed,
            root_of(federation, self._train_root),
            self.config.federation.server_learning_rate,
            samples_of(federation, self.config.seed),
            self.compiled.explainer,
        )

    def _train_root(self, start: np.ndarray, round: int) -> np.ndarray:
        """Trains the server's samples as a client would in a round."""
        epochs = self.config.training.local_epochs
        return self._train_server(start, epochs, self._learning_rate(round), round)

    def declared_knowledge(self) -> dict[str, Any]:
        """Returns what attack and defense were allowed to know, for `environment.json`."""
        source = "the test set" if self.server.root is None else "the server's root data"
        defense = (
            f"{word} from {source}" if word in (PROBE_DATA, AUXILIARY_DATA) else word
            for word in self.defense.declared_knowledge()
        )
        return {
            "attack": list(self.attack.declared_knowledge()),
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
        return self.compiled.trainer.train_all(weights, self.images, [job], self.placement)[0]

    def play_round(
        self, round: int, weights: np.ndarray, memory: Memory
    ) -> tuple[Round, np.ndarray, Memory]:
        """Plays one round; returns it, the new global weights and the memory."""
        clock, groups = Stopwatch(), []
        weights = weights.copy()
        for model, clients in self._draw_participants(round):
            with clock.measure("train"):
                updates = self.train_round(round, clients, weights[model])
            with clock.measure("attack"):
                known = states.part(memory.attack, model)
                updates, malicious, known = self.attack_updates(updates, known)
            with clock.measure("defense"):
                verdict, state = self.judge(updates, memory.defense)
                step = self.config.federation.server_learning_rate * verdict.aggregate
                weights[model] += step.astype(np.float32)
            memory = Memory(states.replaced(memory.attack, model, known), state)
            groups.append(Group(model, updates, verdict, malicious))
        with clock.measure("evaluate"):
            scores = self.evaluate(weights)
        row = {"round": round, **scores, **judged(groups), **clock.seconds}
        return self._played(round, groups, weights, row), weights, memory

    def _played(
        self, round: int, groups: Sequence[Group], weights: np.ndarray, row: Mapping[str, Any]
    ) -> Round:
        """Returns a round as callbacks hear of it."""
        seen = weights.view()
        seen.flags.writeable = False
        return Round(
            number=round,
            groups=groups,
            weights=seen,
            row={name: as_written(value) for name, value in row.items()},
            client_rows=client_rows(round, groups),
            labels=self.federation.dataset.test_labels,
            predict=cache(lambda: self._logits(seen)),
        )

    def _logits(self, weights: np.ndarray) -> np.ndarray:
        return self.compiled.evaluator.logits(weights, self.test_images, self.placement)

    def attack_updates(self, updates: Updates, state: State) -> tuple[Updates, np.ndarray, State]:
        """Replaces what malicious clients trained by what they send, rows and claimed counts.

        Args:
          updates: As trained. The rows are written into its matrix, which is not copied.
          state: What the attackers remember.

        Returns:
          The updates as sent; bool `[n]`, the clients that attack; and the attackers' memory.
        """
        malicious = np.isin(updates.client_ids, self._attackers(updates.round))
        if not self.attack.active(updates.round):
            return updates, malicious, state
        counts = updates.sample_counts.copy()
        counts[malicious] = self.attack.claimed(counts[malicious])
        sent = replace(updates, sample_counts=counts)
        rows, state = self.attack.send(sent.read_only(), malicious, self.adversary, state)
        if rows is not None:
            sent.matrix[malicious] = rows
        return sent, malicious, state

    def _attackers(self, round: int) -> np.ndarray:
        """Returns the ids of the clients that attack in a round."""
        return self.malicious if self.attack.active(round) else self.malicious[:0]

    def judge(
        self, updates: Updates, state: State, defense: Defense | None = None
    ) -> tuple[Verdict, State]:
        """Lets a defense, by default the experiment's own, judge a round."""
        set_weights(self.model, self.layout.unflatten(updates.start))
        received = self.received(updates).read_only()
        return (defense or self.defense).judge(received, self.server, state)

    def received(self, updates: Updates) -> Updates:
        """Returns a round with what the clients' claims count for."""
        counts = weighted_counts(updates.sample_counts, self.config.federation.weighting)
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
            out = on_disk.zeros(len(jobs), self.layout.size)
        matrix = self.compiled.trainer.train_all(weights, self.images, jobs, self.placement, out)
        return Updates(round, clients, counts, weights.copy(), matrix, self.layout)

    def evaluate(self, weights: np.ndarray) -> dict[str, float | None]:
        """Returns accuracy, loss, attack success and its loss of global weights `[models, d]`.

        None where there is no attack success to measure, NaN where outputs are not finite.
        """
        labels = self.federation.dataset.test_labels
        accuracy, loss = self.compiled.evaluator.evaluate(
            weights, self.test_images, labels, self.placement
        )
        result: dict[str, float | None] = {"accuracy": accuracy, "loss": loss}
        if self.success is None:
            return {**result, "attack_success": None, "attack_loss": None}
        success, attack_loss = self.compiled.evaluator.evaluate(
            weights, self._success_images, self.success.targets, self.placement
        )
        return {**result, "attack_success": success, "attack_loss": attack_loss}

    def warn_of_ruin(self, round: int, row: Mapping[str, Any], observer: Observer) -> None:
        """Warns in the first round in which outputs of the global model are not finite."""
        undefined = [
            name.replace("_", " ")
            for name in ("accuracy", "loss", "attack_success", "attack_loss")
            if row[name] is not None and math.isnan(row[name])
        ]
        if undefined and not self._ruined:
            observer.warning(
                f"round {round}: outputs of the global model are not finite (NaN or infinite), so "
                f"that its {', '.join(undefined)} are undefined and left empty"
            )
        self._ruined = bool(undefined)

    def finish(
        self, weights: np.ndarray, memory: Memory, recorder: Recorder, stopped: Mapping[str, Any]
    ) -> Run:
        """Writes what comes after the last round, and returns the run.

        Args:
          weights: Global weights float32 `[models, d]`.
          memory: What attackers and defense remember.
          recorder: Has the rounds.
          stopped: What the summary says of a run that a callback has ended; empty otherwise.
        """
        rounds, clients = recorder.frames()
        who = {
            "malicious_clients": self.malicious.tolist(),
            "acting_clients": self.acting_clients(),
        }
        summary = summarize(self.config, rounds, self.layout.size, who, self.success)
        summary |= stopped
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
        votes = self.compiled.evaluator.votes(weights, self.test_images, self.placement)
        return Certificates(votes, self.federation.dataset.test_labels)

    def _global_model(self, weights: np.ndarray) -> keras.Model:
        set_weights(self.model, self.layout.unflatten(weights[0]))
        if len(weights) == 1:
            return self.model
        return majority_model(self.model, [self.layout.unflatten(row) for row in weights])


def _without_images(dataset: Dataset) -> Dataset:
    nothing = _none_of(dataset.train_images)
    return replace(dataset, train_images=nothing, test_images=nothing)


def _none_of(images: np.ndarray) -> np.ndarray:
    return np.empty((0, *images.shape[1:]), images.dtype)


def _warn_of_threads(runtime: Runtime, observer: Observer) -> None:
    if runtime.intra_op_threads != INTRA_OP_THREADS:
        observer.warning(
            "TensorFlow was started before tffl, with several threads inside an operation: "
            "results of this process are not reproducible to the last bit"
        )

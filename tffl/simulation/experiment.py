"""Everything that is fixed before round 1, and checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tffl.attacks import Attack, create_attack
from tffl.attacks.adversary import Adversary
from tffl.config import Config
from tffl.core import seeds
from tffl.core.errors import UsageError, require
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.core.weighting import weighted_counts
from tffl.data.build import build_federation
from tffl.data.federation import Federation
from tffl.defenses import Defense, Verdict, create_defense
from tffl.defenses.base import State
from tffl.engine.observer import Observer
from tffl.engine.placement import LocalDevices
from tffl.engine.runtime import INTRA_OP_THREADS, Runtime, configure
from tffl.models.layers import set_weights
from tffl.record.store_size import check_store_size
from tffl.simulation.attackers import Attackers
from tffl.simulation.evaluation import Evaluation
from tffl.simulation.participants import draw_dropouts, draw_malicious, draw_participants
from tffl.simulation.placement import place
from tffl.simulation.server import check_defense, make_server, sources
from tffl.simulation.shared_resources import SharedResources, first_weights
from tffl.simulation.split_table import split_table
from tffl.simulation.training import Training


class Experiment:
    """Everything that is fixed before round 1, checked; `tffl.simulation.loop` plays it.

    Attributes:
      config: The experiment, resolved.
      defense: Judges the clients.
      server: What the defense may use.
      attackers: Who is malicious, and what they send.
      training: Trains clients, and the server on its own data.
      evaluation: Evaluates global weights.
      federation: Who holds which images; without the images.
      compiled: The compiled functions of the model.
      first_weights: float32 `[d]`.
      groups: int64 `[clients]`, which of the global models each client trains.
    """

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
        placement = LocalDevices(self.runtime.devices)
        if trains:
            placement = place(config.runtime, self.runtime.devices, observer)

        observer.phase(f"preparing {config.data.dataset}")
        dataset = shared.dataset(config.data)
        self.data_fingerprint = dataset.fingerprint
        self.attack.check(dataset)
        malicious = draw_malicious(config, draw)
        self.attack.check_clients(len(malicious), config.federation.participant_count)
        honest = build_federation(config, dataset, self.attack.reserve(dataset))
        federation = self.attack.poison(honest, malicious, config.seed)

        observer.phase(f"building {config.model.name}")
        self.compiled = shared.compiled(config, dataset)
        self.first_weights = first_weights(config, dataset, observer.warning)
        self.server = make_server(config, self.compiled, federation, self._train_root)
        self.check_defense(self.defense, config.defense.name)
        self._check_storing()
        adversary = Adversary(
            self.model, config, federation, malicious, self.compiled, self.server.samples
        )
        self.attackers = Attackers(self.attack, adversary, honest.clients, federation.clients)
        # Measured without an attacker too: what the success inputs yield by themselves.
        success = self.attack.success_set(federation, config.seed)
        self.groups = self.defense.groups(self.server)

        images = placement.training_images(federation.images, config)
        self.training = Training(config, self.compiled, placement, images)
        limit = config.record.evaluate_samples
        self.evaluation = Evaluation(self.compiled, placement, federation.dataset, success, limit)
        self.federation = _without_images(federation)
        self.attackers.warn_of_idle(config.attack.name, observer)

    @property
    def model(self) -> keras.Model:
        """The network, whose weights anyone may overwrite."""
        return self.compiled.model

    @property
    def layout(self) -> WeightLayout:
        """Columns of a flat weight vector."""
        return self.compiled.layout

    def check_defense(self, defense: Defense, name: str, participants: int | None = None) -> None:
        """Raises `UsageError` if a defense cannot work here, by default with all participants."""
        count = self.config.federation.participant_count if participants is None else participants
        check_defense(defense, name, count, self.server)

    def _check_storing(self) -> None:
        require(
            self.defense.models == 1 or not self.config.record.store_updates,
            f"{self.config.defense.name} keeps {self.defense.models} models, and updates of "
            "several models cannot be stored: leave out record.store_updates",
        )
        participants = self.config.federation.participant_count
        check_store_size(self.config, participants, self.layout.size)

    def _train_root(self, start: np.ndarray, round: int) -> np.ndarray:
        """Trains the server's samples as a client would in a round."""
        assert self.federation.server is not None
        return self.training.server(self.federation.server, start, round)

    def declared_knowledge(self) -> dict[str, Any]:
        """Returns what attack and defense were allowed to know, for `environment.json`."""
        return {
            "attack": list(self.attack.declared_knowledge()),
            "defense": sources(self.defense, self.server),
            "runtime": {
                "devices": list(self.runtime.devices),
                "intra_op_threads": self.runtime.intra_op_threads,
            },
        }

    def split(self) -> list[dict[str, Any]]:
        """Returns, for each client and class, the samples as dealt and as trained: `split.csv`."""
        dealt = replace(self.federation, clients=self.attackers.honest)
        return split_table(dealt, self.federation, self.config.data.partition)

    def participants(self, round: int) -> np.ndarray:
        """Returns the ids of the clients that answer in a round, ascending, int64 `[n]`."""
        generator = seeds.generator(self.config.seed, "participants", round)
        clients = draw_participants(self.config.federation, self.attackers.ids, generator)
        return clients[~draw_dropouts(self.config, round, clients)]

    def lacking(self, participants: int) -> str:
        """Returns why so few clients cannot be judged; empty if they can."""
        if participants == 0:
            return "there is nothing to average"
        try:
            self.check_defense(self.defense, self.config.defense.name, participants)
        except UsageError as error:
            return str(error).partition("; ")[0]  # what follows is advice for a config
        return ""

    def by_model(self, clients: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Returns each global model that some clients train, and their ids."""
        group = self.groups[clients]
        return [(int(model), clients[group == model]) for model in np.unique(group)]

    def train(self, round: int, clients: np.ndarray, weights: np.ndarray) -> Updates:
        """Trains some clients, given their ids int64 `[n]`, from global weights `[d]`."""
        return self.training.clients(round, clients, self.attackers.data(round), weights)

    def follow_attack(self, state: State) -> None:
        """Measures attack success from now on with what attackers have learned.

        Args:
          state: What they remember of the first global model.
        """
        self.evaluation.follow(self.attack, state)

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


def _without_images(federation: Federation) -> Federation:
    """Returns a federation without the images: the devices have them."""
    nothing = np.empty((0, *federation.images.shape[1:]), federation.images.dtype)
    dataset = replace(federation.dataset, train_images=nothing, test_images=nothing)
    return replace(federation, images=nothing, dataset=dataset)


def _warn_of_threads(runtime: Runtime, observer: Observer) -> None:
    if runtime.intra_op_threads != INTRA_OP_THREADS:
        observer.warning(
            "TensorFlow was started before tffl, with several threads inside an operation: "
            "results of this process are not reproducible to the last bit"
        )

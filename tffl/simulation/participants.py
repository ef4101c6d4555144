"""Who is malicious, who takes part in a round, and who of them answers late or never."""

from __future__ import annotations

import numpy as np

from tffl.config import Config, FederationConfig
from tffl.core import seeds


def draw_malicious(config: Config, draw: int = 0) -> np.ndarray:
    """Returns the ids of an experiment's malicious clients, ascending, int64 `[f]`.

    Args:
      config: The experiment.
      draw: Draws others than the experiment's own, unless 0.
    """
    federation = config.federation
    count = 0 if config.attack.name == "none" else federation.malicious_count
    generator = seeds.generator(config.seed, "malicious", draw)
    return np.sort(generator.choice(federation.clients, count, replace=False))


def draw_participants(
    federation: FederationConfig, malicious: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Returns the ids of a round's participants, ascending, int64 `[n]`.

    Args:
      federation: How many there are, and whether a given number of them is malicious.
      malicious: int64 `[f]`, ids of the malicious clients, ascending; if there are none, that does
        not matter.
      generator: Of the round.
    """
    count, wanted = federation.participant_count, federation.malicious_participants
    if wanted is None or len(malicious) == 0:
        return np.sort(generator.choice(federation.clients, count, replace=False))
    chosen = generator.choice(malicious, wanted, replace=False)
    honest = federation.clients - len(malicious)
    turns = generator.choice(honest, count - wanted, replace=False)
    # The i-th honest id, without a list of them all: i, and one more for each attacker before it.
    before = np.searchsorted(malicious - np.arange(len(malicious)), turns, side="right")
    return np.sort(np.concatenate([chosen, turns + before]))


def draw_dropouts(config: Config, round: int, clients: np.ndarray) -> np.ndarray:
    """Returns which of some clients never answer in a round, bool `[n]`, by their ids `[n]`."""
    return _drawn(config.seed, "dropout", config.federation.dropout, round, clients)


def draw_stragglers(config: Config, round: int, clients: np.ndarray) -> np.ndarray:
    """Returns which of some clients train less in a round, bool `[n]`, by their ids `[n]`."""
    return _drawn(config.seed, "stragglers", config.federation.stragglers, round, clients)


def _drawn(seed: int, purpose: str, share: float, round: int, clients: np.ndarray) -> np.ndarray:
    if share == 0:
        return np.zeros(len(clients), dtype=bool)
    draws = [seeds.generator(seed, purpose, round, int(client)).random() for client in clients]
    return np.array(draws) < share

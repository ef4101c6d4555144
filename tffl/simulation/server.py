"""What a server owns in an experiment, and whether a defense can work with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tffl.config import Config
from tffl.core import seeds
from tffl.core.errors import require
from tffl.data.federation import Federation
from tffl.data.samples import AUXILIARY_DATA, PROBE_DATA, ROOT_DATA, RootData, Samples
from tffl.defenses import Defense, Server
from tffl.engine.compiled_model import CompiledModel

SAMPLES = 2000
"""The most images that the server looks at clients' models with; it need not keep more."""


def make_server(
    config: Config,
    compiled: CompiledModel,
    federation: Federation,
    train: Callable[[np.ndarray, int], np.ndarray],
) -> Server:
    """Returns the server of an experiment.

    Args:
      config: The experiment.
      compiled: The compiled functions of its model.
      federation: With the server's data, if there is any.
      train: (start float32 `[d]`, round) → the update that training on the server's data yields.
    """
    return Server(
        compiled.model,
        compiled.layout,
        config.federation.clients,
        config.seed,
        root_of(federation, train),
        config.federation.server_learning_rate,
        samples_of(federation, config.seed),
        compiled.explainer,
        config.federation.rounds,
    )


def check_defense(defense: Defense, name: str, participants: int, server: Server) -> None:
    """Raises `UsageError` if a defense cannot judge so many clients with what the server has."""
    defense.check(participants, server.layout)
    images = server.samples is not None and server.samples.images.ndim == 4
    require(
        images or not {PROBE_DATA, AUXILIARY_DATA} & set(defense.declared_knowledge()),
        f"{name} looks at images, and the data are feature vectors: choose a defense that judges "
        "updates alone, such as multi-krum or update-consensus",
    )
    require(
        ROOT_DATA not in defense.declared_knowledge() or server.root is not None,
        f"{name} needs samples of the server's own: set data.server_samples, such as 100, or "
        "data.server_shard = true",
    )
    defense.check_server(server)


def sources(defense: Defense, server: Server) -> list[str]:
    """Returns what a defense is allowed to know, and where images come from."""
    source = "the test set" if server.root is None else "the server's root data"
    return [
        f"{word} from {source}" if word in (PROBE_DATA, AUXILIARY_DATA) else word
        for word in defense.declared_knowledge()
    ]


def samples_of(federation: Federation, seed: int) -> Samples:
    """Returns what a defense may look at models with, at most `SAMPLES` images."""
    data, classes = federation.server, federation.dataset.classes
    if data is not None:
        pool, images, labels = data.indices, federation.images, data.labels
    else:
        images, labels = federation.dataset.test_images, federation.dataset.test_labels
        pool = np.arange(len(labels))
    generator = seeds.generator(seed, "samples")
    rows = np.sort(generator.permutation(len(pool))[:SAMPLES])
    return Samples(images[pool[rows]], labels[rows], classes, federation.dataset.class_names)


def root_of(
    federation: Federation, train: Callable[[np.ndarray, int], np.ndarray]
) -> RootData | None:
    """Returns what a defense gets of the server's samples; None if it has none.

    Args:
      federation: With the server's data, if there is any.
      train: (start float32 `[d]`, round) → the update that training on them yields.
    """
    if federation.server is None:
        return None
    return RootData(federation.images[federation.server.indices], federation.server.labels, train)

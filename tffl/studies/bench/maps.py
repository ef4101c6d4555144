"""The cost of heat maps: `tffl bench maps`.

For 20 clients, the work of the server (16 probes: maps, autoencoder, verdict) is compared with the
training of the clients (one local epoch of 2,778 CIFAR-sized images each), and the maps alone with
tf-keras-vis, called once per client with all probes. All take turns in one process, so a drift in
the machine's speed affects them alike; the results are ratios of medians. Training is timed on
`TRAINED` images and scaled to the full number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tffl.core.updates import Updates
    from tffl.defenses import Server

CLIENTS, IMAGES, PROBES, CLASSES = 20, 2778, 16, 10
SHAPE = (32, 32, 3)
TRAINED = 256
"""Images in the timed training: four batches."""


def bench_maps(model: str = "resnet18", rounds: int = 3, clients: int = CLIENTS) -> dict[str, Any]:
    """Measures the heat maps of a network.

    Args:
      model: The public name of the network.
      rounds: Timed turns of each contender after an untimed first one, which traces everything.
      clients: The number of clients.

    Returns:
      `first_seconds`, of the first turn; `seconds`, of the maps, of each detector's verdict with
      its maps, of tf-keras-vis and of the clients' training; `detectors_against_training` (target:
      at most 0.02) and `maps_against_tf_keras_vis` (target: at least 2), for Grad-CAM; and
      `growth`, the MiB by which the process grows over 200 rounds of `shield`, and its parts.
    """
    from tffl.core.process import silence
    from tffl.engine.runtime import configure
    from tffl.models import models

    models[model]  # refuses an unknown one before TensorFlow is loaded
    silence()
    configure(1)
    contenders = _contenders(model, clients)
    first = {name: _seconds(run) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(_seconds(run))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    seconds["training"] *= clients * IMAGES / TRAINED
    detectors = [name for name in seconds if name in DETECTORS]
    del contenders
    return {
        "model": model,
        "clients": clients,
        "probes": PROBES,
        "first_seconds": first,
        "seconds": seconds,
        "detectors_against_training": {
            name: seconds[name] / seconds["training"] for name in detectors
        },
        "maps_against_tf_keras_vis": seconds["tf-keras-vis"] / seconds["maps"],
        "growth": _growth(),
    }


ROUNDS = 200
"""Rounds over which the growth of memory is measured."""
WARM_UP = 20
"""Rounds before the measurement starts."""


def _growth() -> dict[str, Any]:
    """Measures how memory grows while `shield` judges rounds of `lenet5`; names its parts."""
    from tffl.defenses import Shield
    from tffl.studies.bench.process import linux_bytes

    setting = _Setting.create("lenet5", clients=10)
    defense = Shield(tables={"cam-consensus": {"epochs": 20}})
    state = defense.init(setting.server)
    resident = []
    for round in range(1, WARM_UP + ROUNDS + 1):
        updates = replace(setting.updates, round=round, matrix=setting.updates.matrix * round)
        _, state = defense.judge(updates, setting.server, state)
        resident.append(linux_bytes("self/status", "VmRSS"))
    grown = (resident[-1] - resident[WARM_UP - 1]) / 2**20
    return {"rounds": ROUNDS, "mib": grown, "parts": list(defense.parts)}


DETECTORS = {
    "gradcam-ae": {"probes": PROBES},
    "layercam-ae": {"probes": PROBES},
    "cam-consensus": {"probes": PROBES},
}


@dataclass(frozen=True)
class _Setting:
    """Random updates of a network's clients, and the server that judges them."""

    server: Server
    updates: Updates

    @classmethod
    def create(cls, name: str, clients: int) -> _Setting:
        from tffl.core.layout import WeightLayout
        from tffl.core.updates import Updates
        from tffl.data.samples import Samples
        from tffl.defenses.server import Server
        from tffl.explain.maps import Explainer
        from tffl.models import models

        model, rng = models[name](SHAPE, CLASSES, seed=0), np.random.default_rng(0)
        layout = WeightLayout.of(model)
        start = layout.flatten(model.get_weights())
        matrix = rng.normal(0, 1e-3, (clients, layout.size)).astype(np.float32)
        matrix[:, ~layout.trainable] = 0
        counts = np.full(clients, IMAGES)
        images = rng.integers(0, 256, (TRAINED, *SHAPE), dtype=np.uint8)
        labels = (np.arange(TRAINED) % CLASSES).astype(np.int32)
        samples = Samples(images, labels, CLASSES)
        server = Server(model, layout, clients, 0, samples=samples, explainer=Explainer(model))
        return cls(server, Updates(1, np.arange(clients), counts, start, matrix, layout))


def _contenders(name: str, clients: int) -> dict[str, Callable[[], Any]]:
    import tensorflow as tf

    from tffl.config import TrainingConfig
    from tffl.data.federation import ClientData
    from tffl.defenses import create_defense
    from tffl.engine.training import LocalTraining, Trainer
    from tffl.explain.probes import draw

    setting = _Setting.create(name, clients)
    server, updates = setting.server, setting.updates
    model, samples, explainer = server.model, server.samples, server.explainer
    assert samples is not None and explainer is not None
    probes = draw(samples, PROBES, 0)

    trainer = Trainer(model, TrainingConfig(batch_size=64))
    data = ClientData(np.arange(TRAINED, dtype=np.int32), samples.labels)
    job = LocalTraining.draw(data, 1, 0.01, seed=0, round=1, client=0)
    resident, flat = tf.constant(samples.images), tf.constant(updates.start)

    def judge(detector: str) -> Callable[[], Any]:
        defense = create_defense(detector, DETECTORS[detector])
        state = defense.init(server)
        return lambda: defense.judge(updates, server, state)

    return {
        "maps": lambda: explainer.maps(updates, probes, "grad-cam"),
        "tf-keras-vis": lambda: _tf_keras_vis(model, updates, probes, explainer.layer_name()),
        **{detector: judge(detector) for detector in DETECTORS},
        "training": lambda: trainer.train(flat, resident, job).numpy(),
    }


def _tf_keras_vis(model: Any, updates: Any, probes: Any, layer: str) -> list[np.ndarray]:
    """Computes the same maps with tf-keras-vis, one call per client."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    score, images = CategoricalScore(probes.classes.tolist()), probes.images.astype(np.float32)
    result = []
    for row in range(len(updates)):
        model.set_weights(updates.layout.unflatten(updates.weights(row)))
        result.append(
            Gradcam(model)(
                score, images, penultimate_layer=layer, expand_cam=False, normalize_cam=False
            )
        )
    return result


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began

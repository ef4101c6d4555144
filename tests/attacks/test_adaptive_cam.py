"""Adaptive poisoning: inside its ball, and with maps nearer to the consensus than without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.attacks.adversary import Adversary
from tffl.attacks.bounded import distances_to
from tffl.config import build
from tffl.core.updates import Updates
from tffl.data.samples import Samples
from tffl.explain.maps import Explainer, Probes
from tffl.models import models
from tffl.record.identity import resolved

MALICIOUS = np.array([1, 4])
SEEN = np.setdiff1d(np.arange(8), MALICIOUS)


@pytest.fixture(scope="module")
def model():
    return models["lenet5"]((12, 12, 2), 4, seed=1)


@pytest.fixture
def adversary(model, dataset, federation) -> Adversary:
    config = build({"seed": 3, "federation": {"clients": 8}, "model": {"name": "lenet5"}})
    ids = np.arange(80)
    small = dataset(ids)
    images = np.random.default_rng(0).integers(0, 256, (80, 12, 12, 2), dtype=np.uint8)
    shards = replace(federation(small, [10] * 8), images=images)
    samples = Samples(images[:20], small.train_labels[:20], 4)
    return Adversary(model, config, shards, MALICIOUS, server_samples=samples)


@pytest.fixture
def updates(adversary) -> Updates:
    layout, generator = adversary.layout, np.random.default_rng(0)
    rows = generator.normal(0, 0.02, (8, layout.size)).astype(np.float32)
    start = layout.flatten(adversary.model.get_weights())
    return Updates(2, np.arange(8), np.full(8, 10), start, rows, layout)


def craft(adversary, updates, **options) -> np.ndarray:
    attack = attacks.create("adaptive-cam", {"steps": 12, **options})
    malicious = np.isin(updates.client_ids, MALICIOUS)
    return attack.send(updates, malicious, adversary, attack.init(adversary))[0]


def excess(adversary, updates, row) -> float:
    """D / D₀ on the attackers' own images, written from the formula."""
    images, labels = adversary.samples()
    maps = Explainer(adversary.model).maps(
        replace(
            updates,
            matrix=np.vstack([updates.matrix[SEEN], row[None]]),
            client_ids=np.arange(7),
            sample_counts=np.full(7, 10),
        ),
        Probes(images, labels),
        "layer-cam",
    )
    consensus = np.median(maps[:-1], axis=0)
    distances = np.square(maps - consensus).sum(axis=(1, 2, 3))
    return float(distances[-1] / np.median(distances[:-1]))


def test_the_row_stays_within_the_honest_distances(adversary, updates):
    rows = craft(adversary, updates)
    assert (rows[0] == rows[1]).all()
    honest = updates.select(np.isin(np.arange(8), SEEN))
    center = honest.mean(np.full(6, 1 / 6))
    sent = replace(updates, matrix=rows, client_ids=MALICIOUS, sample_counts=np.full(2, 10))
    assert distances_to(sent, center).max() <= distances_to(honest, center).max() * (1 + 1e-5)


def test_the_penalty_keeps_its_maps_near_the_consensus(adversary, updates):
    free, bound = (craft(adversary, updates, penalty=p, probes=20)[0] for p in (0.0, 10.0))
    assert excess(adversary, updates, bound) < 0.7 * excess(adversary, updates, free)
    images, labels = adversary.samples()
    loss = [adversary.gradient(updates.start + row, images, labels)[0] for row in (free, bound)]
    assert loss[1] <= loss[0]


def test_without_a_penalty_it_is_distance_constrained_poisoning(adversary, updates):
    attack = attacks.create("distance-constrained", {"steps": 12})
    malicious = np.isin(updates.client_ids, MALICIOUS)
    rows, _ = attack.send(updates, malicious, adversary, {})
    np.testing.assert_allclose(craft(adversary, updates, penalty=0.0), rows, atol=1e-6)


def test_only_who_knows_the_probes_looks_at_the_servers_images(adversary, updates):
    blind = Adversary.__new__(Adversary)
    blind.__dict__.update(adversary.__dict__, server_samples=None)
    np.testing.assert_array_equal(craft(blind, updates), craft(adversary, updates))
    known = craft(adversary, updates, knows_probes=True)
    assert (known != craft(adversary, updates)).any()
    declared = attacks.create("adaptive-cam", {"knows_probes": True}).declared_knowledge()
    assert "probe images" in declared
    assert "probe images" not in attacks.create("adaptive-cam", {}).declared_knowledge()


@pytest.mark.parametrize(
    ("defense", "layer"),
    [
        ({"name": "none"}, ""),
        ({"name": "cam-consensus", "layer": "conv1"}, "conv1"),
        ({"name": "gradcam-ae", "layer": "last-convolution"}, ""),
        ({"name": "shield"}, "last-block"),
        ({"name": "bias-anomaly", "layer": "dense1"}, ""),
    ],
)
def test_its_maps_are_of_the_layer_that_the_defense_looks_at(
    adversary, updates, defense, layer, monkeypatch
):
    config = resolved(build({**adversary.config.model_dump(), "defense": defense}))
    monkeypatch.setattr(adversary, "config", config)
    asked = []
    maps, distance = Explainer.maps, Explainer.distance
    monkeypatch.setattr(Explainer, "maps", lambda *a: asked.append(a[-1]) or maps(*a))
    monkeypatch.setattr(Explainer, "distance", lambda *a: asked.append(a[-1]) or distance(*a))
    craft(adversary, updates, steps=2)
    assert len(asked) == 3 and set(asked) == {layer}

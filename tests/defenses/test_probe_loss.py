"""Probe loss: its score against Keras, and what it flags."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tffl.core.cross_entropy import mean_cross_entropy
from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.updates import Updates
from tffl.data.samples import Samples
from tffl.defenses import Server, create_defense
from tffl.explain.maps import Explainer
from tffl.explain.probes import draw
from tffl.models import models


@pytest.fixture(scope="module")
def server() -> Server:
    model = models["lenet5"]((12, 12, 1), 5, seed=1)
    rng = np.random.default_rng(0)
    labels = np.arange(100, dtype=np.int32) % 5
    images = (rng.random((100, 12, 12, 1)) * 40 + labels[:, None, None, None] * 50).astype(np.uint8)
    samples = Samples(images, labels, 5)
    layout = WeightLayout.of(model)
    return Server(model, layout, 10, 0, samples=samples, explainer=Explainer(model))


@pytest.fixture
def updates(server) -> Updates:
    layout, rng = server.layout, np.random.default_rng(1)
    start = layout.flatten(server.model.get_weights())
    rows = rng.normal(0, 0.001, (10, layout.size)).astype(np.float32)
    return Updates(1, np.arange(10), np.full(10, 5), start, rows, layout)


def test_scores_equal_keras_softmax_on_the_probes(server, updates):
    defense = create_defense("probe-loss", {"probes": 20})
    verdict, _ = defense.judge(updates, server, defense.init(server))
    probes = draw(server.samples, 20, 0)
    for row in (0, 7):
        server.model.set_weights(updates.layout.unflatten(updates.weights(row)))
        logits = server.model(probes.images.astype(np.float32))
        expected = keras.losses.SparseCategoricalCrossentropy(True)(probes.classes, logits)
        np.testing.assert_allclose(verdict.scores[row], expected, rtol=1e-5)


def test_a_model_that_errs_more_is_flagged_and_one_that_errs_less_is_not(server, updates):
    def logits(updates, probes):
        right = np.eye(5)[probes.classes] * 2
        sure = np.array([2.0, 2.1, 1.9, 2.0, 2.05, 0.0, 4.0, 2.0, 1.95, 2.0])
        return sure[updates.client_ids, None, None] * right

    seen = replace(server, explainer=SimpleNamespace(logits=logits))
    defense = create_defense("probe-loss", {})
    verdict, _ = defense.judge(updates, seen, defense.init(seen))
    assert verdict.flagged.tolist() == [row == 5 for row in range(10)]
    assert verdict.scores.argmin() == 6
    assert verdict.reasons[5].startswith("its model's loss on the probe images is 1.61, above 0.")


def test_the_spread_has_a_floor():
    defense = create_defense("probe-loss", {"k": 4})
    scores = np.array([0.5, 0.5, 0.5, 0.5, 1.09, 1.11])
    assert (scores > defense.threshold(scores)).tolist() == [False] * 5 + [True]
    assert np.isnan(defense.threshold(np.full(3, np.inf)))


def test_what_is_not_finite_is_flagged(server, updates):
    updates.matrix[2, updates.layout.final_bias] = np.nan
    updates.matrix[4] = 1e30
    defense = create_defense("probe-loss", {})
    verdict, _ = defense.judge(updates, server, defense.init(server))
    assert verdict.flagged[[2, 4]].all()
    assert np.isfinite(verdict.scores[[0, 1, 3]]).all()


def test_order_does_not_matter(server, updates):
    defense = create_defense("probe-loss", {})
    order = np.random.default_rng(0).permutation(10)
    first, _ = defense.judge(updates, server, defense.init(server))
    moved = replace(updates, matrix=updates.matrix[order], client_ids=order)
    second, _ = defense.judge(moved, server, defense.init(server))
    np.testing.assert_array_equal(first.scores[order], second.scores)


def test_the_loss_is_stable():
    logits = np.array([[[1e4, -1e4]], [[-1e4, 1e4]], [[np.nan, 0.0]]])
    result = mean_cross_entropy(logits, np.array([0]))
    np.testing.assert_array_equal(result[:2], [0, 2e4])
    assert np.isnan(result[2])


def test_what_cannot_work_is_refused(server, layout):
    with pytest.raises(UsageError, match="probes = 101 is not allowed: the server has 100"):
        create_defense("probe-loss", {"probes": 101}).check_server(server)
    with pytest.raises(UsageError, match="at least 3 participants"):
        create_defense("probe-loss", {}).check(2, layout)

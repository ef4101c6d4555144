"""The GAN auditor: whom it rejects, when, and what it refuses to begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tffl.core.errors import UsageError
from tffl.core.layout import WeightLayout
from tffl.core.pixels import BYTES
from tffl.core.updates import Updates
from tffl.data.samples import RootData, Samples
from tffl.defenses import Server, Verdict, create_defense
from tffl.defenses.parts.variances import negative_variances
from tffl.explain.maps import Explainer
from tffl.models import models

CLIENTS, CLASSES = 9, 4


@pytest.fixture(scope="module")
def server() -> Server:
    """A small network with BatchNorm and the extra output; the weights need not be good."""
    model = models["pdgan-cnn"]((8, 8, 1), CLASSES, seed=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 8, 8, 1), dtype=np.uint8)
    samples = Samples(images, np.arange(80, dtype=np.int32) % CLASSES, CLASSES)
    layout = WeightLayout.of(model)
    return Server(model, layout, CLIENTS, 0, samples=samples, explainer=Explainer(model))


@pytest.fixture
def updates(server: Server) -> Updates:
    layout, rng = server.layout, np.random.default_rng(1)
    start = layout.flatten(server.model.get_weights())
    rows = rng.normal(0, 0.0005, (CLIENTS, layout.size)).astype(np.float32)
    ids, counts = np.arange(CLIENTS), np.arange(1, CLIENTS + 1)
    return Updates(1, ids, counts, start, rows, layout)


@pytest.fixture
def judge(server: Server, updates: Updates) -> Callable[..., Verdict]:
    def run(given: Updates | None = None, on: Server | None = None, **options: Any) -> Verdict:
        options = {"source": "held-out", "images": 40, **options}
        defense, there = create_defense("gan-audit", options), on or server
        defense.check_server(there)
        return defense.judge(given or updates, there, defense.init(there))[0]

    return run


def exchange_outputs(updates: Updates, row: int) -> None:
    """Makes a client's model take every class for another one."""
    columns = updates.layout["logits/kernel"]
    kernel = updates.start[columns].reshape(-1, CLASSES + 1)
    swapped = kernel[:, [1, 0, 3, 2, 4]]
    updates.matrix[row, columns] = (swapped - kernel).ravel()


def test_a_planted_model_is_flagged_and_left_out(judge, updates) -> None:
    exchange_outputs(updates, 4)
    verdict = judge()
    assert verdict.flagged.tolist() == [row == 4 for row in range(CLIENTS)]
    assert verdict.reasons[4].startswith("audit accuracy 0")
    shares = np.arange(1.0, CLIENTS + 1)
    shares[4] = 0
    np.testing.assert_allclose(verdict.weights, shares / shares.sum())
    np.testing.assert_allclose(
        verdict.aggregate, (shares / shares.sum()) @ updates.matrix, atol=1e-7
    )
    assert verdict.shown[0].images.shape == (40, 8, 8, 1)
    assert verdict.shown[0].accuracies[4] == 1 - verdict.scores[4]


@pytest.mark.parametrize("rule", ["fixed", "mean-std", "two-means"])
def test_the_other_rules_find_it_too(judge, updates, rule) -> None:
    exchange_outputs(updates, 4)
    assert judge(rule=rule, k=2, theta=0.6).flagged.tolist() == [row == 4 for row in range(CLIENTS)]


def test_order_does_not_matter(judge, updates) -> None:
    exchange_outputs(updates, 4)
    order = np.random.default_rng(0).permutation(CLIENTS)
    moved = replace(updates, matrix=updates.matrix[order], client_ids=order)
    np.testing.assert_array_equal(judge().scores[order], judge(moved).scores)


def test_before_its_first_round_everybody_is_accepted(judge, updates) -> None:
    exchange_outputs(updates, 4)
    verdict = judge(from_round=2)
    assert verdict.accepted.all() and not verdict.flagged.any()
    assert np.isnan(verdict.scores).all() and np.isnan(verdict.threshold)
    assert judge(replace(updates, round=2), from_round=2).flagged[4]


def test_updates_that_make_nan_are_rejected_at_once(judge, server, updates) -> None:
    variance = server.layout["down1_bn/moving_variance"]
    updates.matrix[2, variance.start] = -1.5
    updates.matrix[5, 7] = np.nan
    updates.matrix[6] = 1e30
    assert negative_variances(updates).tolist() == [row == 2 for row in range(CLIENTS)]
    with np.errstate(all="raise", under="ignore"):
        verdict = judge(window=3, votes=3)
    assert np.flatnonzero(verdict.convicted).tolist() == [2, 5, 6]
    assert verdict.reasons[2].startswith("its update makes a moving variance negative")
    assert verdict.reasons[5].startswith("the update holds NaN or infinity")
    assert verdict.reasons[6].startswith("its model's outputs are not finite")
    assert np.isfinite(verdict.aggregate).all()
    early = judge(from_round=5)
    assert np.flatnonzero(early.convicted).tolist() == [2, 5]


def test_nobody_left_leaves_the_global_model_alone(judge, updates) -> None:
    updates.matrix[:] = np.nan
    verdict = judge()
    assert verdict.convicted.all() and not verdict.aggregate.any() and not verdict.weights.any()


def says(server: Server, predictions: np.ndarray) -> Server:
    """A server whose clients' models say what is given, `[n, m]`."""

    def logits(updates: Updates, probes: Any) -> np.ndarray:
        return np.eye(CLASSES + 1)[predictions[updates.client_ids, : len(probes)]]

    return replace(server, explainer=SimpleNamespace(logits=logits, pixels=BYTES))  # type: ignore[arg-type]


def test_all_below_a_fixed_threshold_are_rejected(judge, server) -> None:
    rng = np.random.default_rng(0)
    verdict = judge(on=says(server, rng.integers(0, 4, (CLIENTS, 40))), rule="fixed", theta=0.9)
    assert verdict.convicted.all() and not verdict.aggregate.any()


def test_without_agreement_nobody_is_judged(judge, server) -> None:
    rng = np.random.default_rng(0)
    verdict = judge(on=says(server, rng.integers(0, 4, (CLIENTS, 40))), agreement=1.0)
    assert verdict.accepted.all() and np.isnan(verdict.scores).all()


def test_a_vote_over_rounds(judge, server, updates) -> None:
    exchange_outputs(updates, 4)
    defense = create_defense("gan-audit", {"source": "held-out", "images": 40, "window": 2})
    state = defense.init(server)
    assert defense.tracks_clients
    verdict, state = defense.judge(updates, server, state)
    verdict, state = defense.judge(replace(updates, round=2), server, state)
    assert verdict.reasons[4].endswith("flagged in 2 of its last 2 rounds")
    assert not any(key.startswith("gan/") for key in state)


def test_auxiliary_images_come_from_all_root_data(judge, server) -> None:
    root = RootData(server.samples.images[:30], server.samples.labels[:30], lambda start, _: start)
    with pytest.raises(UsageError, match="auxiliary_images = 9 is not allowed: the server has 8"):
        judge(on=replace(server, root=root), source="auxiliary", auxiliary=1, auxiliary_images=9)
    assert judge(on=replace(server, root=root), source="auxiliary", auxiliary="1").accepted.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "gann"}, "unknown audit source 'gann': did you mean 'gan'"),
        ({"source": "gan", "auxiliary": "7"}, "auxiliary = 7 is not allowed: classes are 0 to 3"),
        ({"source": "held-out", "images": 81}, "images = 81 is not allowed: the server has 80"),
        ({"votes": 2}, "defense.votes = 2 is not allowed"),
        ({"theta": 1.5}, "theta = 1.5 is not allowed"),
    ],
)
def test_what_cannot_work_is_refused(server, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        defense = create_defense("gan-audit", options)
        defense.check(CLIENTS, server.layout)
        defense.check_server(server)


def test_networks_and_sizes_that_a_gan_cannot_use_are_refused(server) -> None:
    defense = create_defense("gan-audit", {"source": "gan+noise"})
    plain = SimpleNamespace(name="lenet5", input_shape=(None, 8, 8, 1), output_shape=(None, 4))
    with pytest.raises(UsageError, match=r"lenet5, which has 4 outputs for 4 classes.*pdgan-cnn"):
        defense.check_server(replace(server, model=plain))
    large = SimpleNamespace(name="big", input_shape=(None, 64, 64, 1), output_shape=(None, 5))
    with pytest.raises(UsageError, match=r"generator makes up to 32 x 32; set data.image_size"):
        defense.check_server(replace(server, model=large))
    with pytest.raises(UsageError, match="at least 3 participants"):
        defense.check(2, server.layout)


def test_it_says_what_it_was_granted() -> None:
    def granted(source: str) -> tuple[str, ...]:
        return create_defense("gan-audit", {"source": source}).declared_knowledge()

    assert granted("gan") == ("auxiliary images",)
    assert granted("gan+held-out") == ("auxiliary images", "probe images")
    assert granted("model-inversion") == ()

"""Adaptive poisoning of coalition: hidden from the detector that it plays, and still harmful."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tffl.attacks import attacks
from tffl.attacks.adaptive_coalition import AdaptiveCoalition
from tffl.attacks.adversary import Adversary
from tffl.attacks.bounded import distances_to
from tffl.attacks.rehearsal import detector_of, imagined
from tffl.config import build
from tffl.core.updates import Updates
from tffl.data.samples import Samples
from tffl.defenses import create_defense
from tffl.defenses.coalition import Coalition
from tffl.defenses.server import Server
from tffl.explain.maps import Probes
from tffl.models import models
from tffl.record.identity import resolved

MALICIOUS = np.array([1, 4, 7, 10])
CLIENTS, EACH = 16, 10
COLLUDERS = np.isin(np.arange(CLIENTS), MALICIOUS)
QUICK = {"halvings": 2, "knows_probes": True}


@pytest.fixture(scope="module")
def model():
    return models["cnn"]((6, 6, 2), 4, seed=1)


@pytest.fixture
def adversary(model, dataset, federation) -> Adversary:
    config = resolved(
        build(
            {
                "seed": 3,
                "federation": {"clients": CLIENTS},
                "model": {"name": "cnn"},
                "training": {"batch_size": 4},
                "defense": {"name": "coalition"},
            }
        )
    )
    small = dataset(np.arange(CLIENTS * EACH))
    images = np.random.default_rng(0).integers(0, 80, (CLIENTS * EACH, 6, 6, 2), dtype=np.uint8)
    images[np.arange(len(images)), small.train_labels, 2:4] += 150  # what tells the classes apart
    shards = replace(federation(small, [EACH] * CLIENTS), images=images)
    samples = Samples(images[:60], small.train_labels[:60], 4)
    return Adversary(model, config, shards, MALICIOUS, server_samples=samples)


@pytest.fixture
def updates(adversary) -> Updates:
    """A descent that all clients share, and what each of them has beside it."""
    layout, generator = adversary.layout, np.random.default_rng(0)
    start = layout.flatten(adversary.model.get_weights())
    _, slope = adversary.gradient(start, *adversary.samples())
    noise = generator.normal(0, 1, (CLIENTS, layout.size)) / np.sqrt(layout.size)
    rows = 0.3 * (noise - slope / np.linalg.norm(slope)) * layout.trainable
    counts = np.full(CLIENTS, EACH)
    return Updates(1, np.arange(CLIENTS), counts, start, rows.astype(np.float32), layout)


def server_of(adversary: Adversary) -> Server:
    return Server(
        adversary.model,
        adversary.layout,
        CLIENTS,
        adversary.seed,
        samples=adversary.server_samples,
        explainer=adversary.explainer,
    )


def send(name: str, adversary, updates: Updates, **options) -> Updates:
    attack = attacks.create(name, options)
    rows, _ = attack.send(updates, COLLUDERS, adversary, attack.init(adversary))
    return updates.with_rows(COLLUDERS, rows)


def judged(adversary, sent: Updates) -> tuple[np.ndarray, float]:
    """Whom the real detector accepts of the colluders, and how wrong it leaves the joint model."""
    server, detector = server_of(adversary), Coalition()
    verdict, _ = detector.judge(sent, server, detector.init(server))
    after = Updates.of_rows(verdict.aggregate[None], layout=sent.layout, start=sent.start)
    images, labels = adversary.samples()
    logits = adversary.explainer.logits(after, Probes(images, labels))[0].astype(np.float64)
    powers = np.exp(logits)
    certain = powers[np.arange(len(labels)), labels] / powers.sum(axis=1)
    return verdict.accepted[COLLUDERS], 1 - float(certain.mean())


def test_it_stays_hidden_and_harms_where_a_plain_shift_is_convicted(adversary, updates):
    plain, _ = judged(adversary, send("distance-constrained", adversary, updates, spread="own"))
    assert not plain.any()
    hidden, wrong = judged(adversary, send("adaptive-coalition", adversary, updates, **QUICK))
    assert hidden.all()
    assert wrong > judged(adversary, updates)[1] + 0.004


def test_who_knows_the_probes_does_at_least_as_much_harm(adversary, updates):
    known = judged(adversary, send("adaptive-coalition", adversary, updates, **QUICK))[1]
    guessed = {**QUICK, "knows_probes": False}
    assert known >= judged(adversary, send("adaptive-coalition", adversary, updates, **guessed))[1]


def test_rows_are_no_farther_from_the_mean_than_honest_ones(adversary, updates):
    sent = send("adaptive-coalition", adversary, updates, **QUICK)
    honest = updates.select(~COLLUDERS)
    center = honest.mean(np.full(len(honest), 1 / len(honest)))
    limit = distances_to(honest, center).max()
    assert distances_to(sent.select(COLLUDERS), center).max() <= limit * (1 + 1e-5)
    assert len(np.unique(sent.select(COLLUDERS).deltas, axis=0)) == len(MALICIOUS)


def test_where_nothing_stays_hidden_they_send_what_they_trained(adversary, updates):
    clones = send("adaptive-coalition", adversary, updates, **QUICK, spread="none")
    np.testing.assert_array_equal(clones.deltas, updates.deltas)


def test_a_smaller_margin_does_not_do_more_harm(adversary, updates):
    wary = judged(adversary, send("adaptive-coalition", adversary, updates, **QUICK, margin=0.3))
    assert wary[0].all()
    bold = judged(adversary, send("adaptive-coalition", adversary, updates, **QUICK, margin=1.0))
    assert wary[1] <= bold[1]


def test_it_remembers_what_the_detector_does(adversary, updates):
    attack = AdaptiveCoalition(**{**QUICK, "steps": 1, "halvings": 0})
    rows, state = attack.send(updates, COLLUDERS, adversary, attack.init(adversary))
    server, detector = server_of(adversary), Coalition()
    sent = updates.with_rows(COLLUDERS, rows)
    _, after = detector.suspect(sent, server, detector.init(server))
    for name in state:
        np.testing.assert_allclose(state[name], after[name], atol=1e-6)


@pytest.mark.parametrize("name", ["coalition", "shield", "multi-krum"])
def test_the_detector_has_the_options_of_the_experiment(name):
    options = {"coherence": 0.3}
    changes = {"coalition": options} if name == "shield" else options
    given = create_defense(name, {} if name == "multi-krum" else changes).options()
    expected = Coalition(**({} if name == "multi-krum" else options))
    assert detector_of(given).coherence == expected.coherence


def test_their_own_updates_stand_in_for_those_that_they_do_not_see(updates):
    own = updates.select(COLLUDERS)
    everyone, theirs = imagined(updates, COLLUDERS, own, CLIENTS)
    assert len(everyone) == 8 and theirs.sum() == 4
    assert everyone.sample_counts[~theirs].sum() == updates.sample_counts[~COLLUDERS].sum()
    np.testing.assert_allclose(
        everyone.select(~theirs).deltas, 2 * own.deltas.mean(axis=0) - own.deltas, atol=1e-6
    )
    few = updates.select(np.array([0, 2, 3]))
    everyone, theirs = imagined(updates, COLLUDERS, few, CLIENTS)
    assert everyone.client_ids.tolist() == [0, 1, 2, 3, 4, 7, 10]
    assert theirs.tolist() == [False, True, False, False, True, True, True]
    assert everyone.sample_counts.tolist() == [40, 10, 40, 40, 10, 10, 10]

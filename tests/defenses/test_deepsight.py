"""DeepSight: numbers of a public reimplementation, ties, noise on a network, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tffl.defenses.deepsight as module
from tffl.core.errors import UsageError
from tffl.core.geometry import cosines
from tffl.core.layout import Entry, WeightLayout
from tffl.core.updates import Updates
from tffl.defenses.base import Defense
from tffl.defenses.deepsight import (
    LARGEST,
    DeepSight,
    count_exceedings,
    ensemble,
    partition,
    ratios,
    update_energies,
)
from tffl.studies.bench.naive import NAIVE, Case
from tffl.testing.defense import DefenseCase
from tffl.testing.fixtures import CLASSES


def digits(rows: list[str]) -> np.ndarray:
    return np.array([[float(digit) for digit in row] for row in rows])


CLIENTS = digits(
    [
        "191009010901693669668925194749756934",
        "091019100911696669856943394859763921",
        "191109011900595679678924492739566941",
        "091119011911393679656923293569585934",
        "090009010900693459785955291559684953",
        "396255544744355473758844441764584544",
        "685135531835523485575523142837566534",
        "356263865625424583858544333846755733",
        "694125744723445764786726321647756453",
        "383254845765536573655826221554756452",
        "454345861964534476755755132857486733",
        "584322552732344675578746221657653631",
        "375425654825354586585533132765486522",
        "820382236883953398924271955534374067",
    ]
)
"""A kernel [2, 4], a bias [4], and outputs of 4 classes for 3 draws of 2 images: five attackers."""

KERNELS, BIASES = CLIENTS[:, :8].reshape(14, 2, 4), CLIENTS[:, 8:12]
OUTPUTS = CLIENTS[:, 12:].reshape(14, 3, 2, 4).swapaxes(0, 1)
JOINT = digits(["434564666634222645564532"]).reshape(3, 2, 4)

EXCEEDINGS = [1, 1, 1, 1, 1, 3, 2, 4, 3, 4, 3, 4, 3, 2]
ENERGIES = [[0.001361, 0.991837, 0.001361, 0.005442], [0.598269, 0.177998, 0.123609, 0.100124]]
DIFFERENCES = [[1.25, 2.624999, 0.875, 1.1], [1.875, 1.833333, 1.125, 0.466667]]
BY_ANGLE = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, -1, 1, 1, -1]
BY_ENERGY = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, -1]
BY_OUTPUT = [BY_ENERGY, BY_ENERGY, [-1] * 14]
CLUSTERS = BY_ENERGY
"""What FLPoison's aggregators/deepsight.py at commit eb74fb2, retyped line by line, gives for the
digits above with the package `hdbscan` 0.8.44, whose noise is −1; numbers of clients 0 and 13."""


def differences() -> list[np.ndarray]:
    pairs = zip(OUTPUTS, JOINT, strict=True)
    return [ratios(local, joint, "logits").mean(axis=1) for local, joint in pairs]


def together(labels: np.ndarray | list[int]) -> np.ndarray:
    """Returns which clients share a cluster; nobody shares −1."""
    found = np.asarray(labels)
    same = (found[:, None] == found) & (found >= 0)
    return same | np.eye(len(found), dtype=bool)


def test_numbers_of_a_public_reimplementation() -> None:
    energies, outputs = update_energies([KERNELS, BIASES[:, None]]), differences()
    np.testing.assert_allclose(energies[[0, 13]], ENERGIES, atol=1e-6)
    assert count_exceedings(energies).tolist() == EXCEEDINGS
    np.testing.assert_allclose(outputs[0][[0, 13]], DIFFERENCES, atol=1e-6)
    found = [
        partition(1 - cosines(BIASES @ BIASES.T), 5),
        *(partition(module._distances(each), 5) for each in (energies, *outputs)),
        ensemble(energies, BIASES, outputs, 5),
    ]
    for labels, expected in zip(found, [BY_ANGLE, BY_ENERGY, *BY_OUTPUT, CLUSTERS], strict=True):
        np.testing.assert_array_equal(together(labels), together(expected))


def test_tied_clients_do_not_depend_on_their_order() -> None:
    """HDBSCAN alone depends on it in each of these cases."""
    for seed in (0, 4, 5, 8):
        rng = np.random.default_rng(seed)
        groups = np.eye(4)[rng.integers(0, 4, (5, 20))]
        energies, biases, *outputs = groups + 0.01 * rng.normal(size=groups.shape)
        order = rng.permutation(20)
        one = ensemble(energies, biases, list(outputs), 3)
        moved = [each[order] for each in outputs]
        other = ensemble(energies[order], biases[order], moved, 3)
        np.testing.assert_array_equal(together(one)[np.ix_(order, order)], together(other))


def test_ratios_are_bounded() -> None:
    local = np.array([[[0.0, np.nan]], [[np.inf, 1.0]], [[1.0, 1.0]]])
    joint = np.array([[1.0, 0.0]])
    for outputs in ("probabilities", "logits"):
        found = ratios(local, joint, outputs)
        assert np.isfinite(found).all() and np.abs(found).max() <= LARGEST
    assert ratios(local, joint, "logits")[0, 0, 1] == LARGEST
    chances = np.exp([1.0, 0.0]) / (1 + np.e)
    np.testing.assert_allclose(
        ratios(local, joint, "probabilities")[2, 0], 0.5 / chances, rtol=1e-4
    )


@pytest.fixture(scope="module")
def case() -> Case:
    """Twelve clients, of whom the first five train for class 3 alone, and hard."""
    setting = DefenseCase(DeepSight(), "deepsight", 12)
    updates, layout = setting.round(), setting.server.layout
    matrix = updates.matrix.copy()
    matrix[:, ~layout.trainable] = 0
    kernel = matrix[:, layout["logits/kernel"]].reshape(12, -1, CLASSES)
    kernel[:5, :, 3], kernel[:5, :, :3] = 0.2, 0
    kernel[:5, :, 4:] = 0
    matrix[:, layout["logits/kernel"]] = kernel.reshape(12, -1)
    matrix[:5, layout.final_bias] = 0.5 * (np.arange(CLASSES) == 3)
    return Case(replace(updates, matrix=matrix), setting.server, {}, 5)


def test_clusters_of_few_classes_are_rejected_and_the_rest_is_clipped(case: Case) -> None:
    verdict, _ = DeepSight().judge(case.updates, case.server, {})
    assert verdict.accepted.tolist() == [False] * 5 + [True] * 7
    assert verdict.reasons[0] == "in a cluster of 5, of which 100% concentrate on few classes"
    np.testing.assert_allclose(verdict.weights, verdict.accepted / 7)
    norms = np.linalg.norm(case.rows, axis=1)
    clipped = case.rows * np.minimum(1, np.median(norms) / norms)[:, None]
    np.testing.assert_allclose(verdict.aggregate, clipped[5:].mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(verdict.aggregate, NAIVE["deepsight"](case), rtol=1e-4, atol=1e-7)
    tolerant = DeepSight(noise_images=50, suspicious=1.0)
    assert not tolerant.judge(case.updates, case.server, {})[0].accepted[:5].any()


@pytest.mark.parametrize(("attackers", "smallest", "rejected"), [(3, 5, 0), (4, 5, 11), (4, 3, 4)])
def test_without_clusters_all_clients_are_one(
    case: Case, attackers: int, smallest: int, rejected: int
) -> None:
    few = case.updates.select(np.arange(12) >= 5 - attackers)
    verdict, _ = DeepSight(noise_images=50, smallest=smallest).judge(few, case.server, {})
    assert (~verdict.accepted).sum() == rejected and not verdict.accepted[:rejected].any()
    assert verdict.aggregate.any() == verdict.accepted.any()


def test_a_client_of_no_cluster_is_judged_by_itself(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.array([0] * 5 + [1] * 6 + [2])
    monkeypatch.setattr(module, "ensemble", lambda *_: labels)
    usual, _ = DeepSight(noise_images=1).judge(case.updates, case.server, {})
    assert usual.accepted.tolist() == [False] * 5 + [True] * 7
    matrix = case.rows.copy()
    matrix[11] = matrix[0]
    copied = replace(case.updates, matrix=matrix)
    verdict, _ = DeepSight(noise_images=1).judge(copied, case.server, {})
    assert verdict.accepted.tolist() == [False] * 5 + [True] * 6 + [False]
    assert verdict.reasons[11] == "in no cluster, and its update concentrates on few classes"


def test_whoever_leaves_the_final_layer_as_it_is_is_suspicious(case: Case) -> None:
    matrix = case.rows.copy()
    matrix[:5, case.updates.layout["logits/kernel"]] = 0
    matrix[:5, case.updates.layout.final_bias] = 0
    still = replace(case.updates, matrix=matrix)
    assert not DeepSight(noise_images=50).judge(still, case.server, {})[0].accepted[:5].any()


def test_noise_comes_in_batches_and_is_the_same_every_round(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(updates: Updates) -> list[np.ndarray]:
        return list(DeepSight(noise_images=20)._differences(updates, case.server))

    whole = found(case.updates)
    np.testing.assert_array_equal(whole, found(replace(case.updates, round=7)))
    assert len(whole) == 3 and np.abs(whole[0] - whole[1]).max() > 0
    still = Updates.of_rows(
        np.zeros((2, len(case.updates.start))), layout=case.updates.layout, start=case.updates.start
    )
    np.testing.assert_allclose(found(still), 1, atol=1e-3)
    monkeypatch.setattr(module, "BATCH", 20)
    one = found(case.updates)
    np.testing.assert_allclose(one, whole, rtol=1e-4)


@pytest.mark.parametrize(
    ("defense", "participants", "message"),
    [
        (DeepSight(), 4, "deepsight needs at least 5 participants a round, not 4"),
        (DeepSight(smallest=2), 3, "deepsight needs at least 4 participants a round, not 3"),
        (DeepSight(smallest=8), 7, "deepsight needs at least 8 participants a round, not 7"),
    ],
)
def test_small_rounds_are_refused(defense: Defense, participants: int, message: str) -> None:
    layout = WeightLayout((Entry("logits/bias", (4,), True),))
    defense.check(participants + 1, layout)
    with pytest.raises(UsageError, match=message):
        defense.check(participants, layout)


def test_a_final_layer_without_bias_is_refused() -> None:
    with pytest.raises(UsageError, match="the final layer logits has no bias"):
        DeepSight().check(9, WeightLayout((Entry("logits/kernel", (3, 4), True),)))

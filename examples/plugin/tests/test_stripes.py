"""Each part does what tffl relies on."""

import numpy as np
from stripes.attack import Recoil
from stripes.dataset import DIRECTIONS, Stripes
from stripes.defense import MedianDistance
from stripes.metric import diagonal_confusion
from stripes.model import stripes_cnn

from tffl.data.validation import check_source, validated
from tffl.testing import check_attack, check_defense


def test_defense() -> None:
    check_defense(MedianDistance(), name="median-distance")
    check_defense(MedianDistance(factor=1.5, window=3, votes=2), name="median-distance")


def test_defense_finds_an_outlier() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 50)).astype(np.float32)
    rows[3] *= -9
    assert MedianDistance().judge_rows(rows).convicted.nonzero()[0].tolist() == [3]


def test_attack() -> None:
    check_attack(Recoil(), name="recoil")
    check_attack(Recoil(factor=1.0, from_round=2), name="recoil")


def test_attack_turns_the_mean_of_the_attackers_around() -> None:
    sent = Recoil(factor=2.0).poison_rows(np.array([[1.0], [3.0], [5.0]]), malicious=[0, 1])
    assert sent.ravel().tolist() == [-4.0, -4.0, 5.0]


def test_dataset() -> None:
    check_source(Stripes, "stripes")
    dataset = validated(Stripes().load(None), "stripes")
    assert dataset.class_names == DIRECTIONS and len(dataset.test_labels) == 200


def test_model() -> None:
    model = stripes_cnn((16, 16, 1), 4, seed=1)
    assert model.output_shape == (None, 4)
    same, other = stripes_cnn((16, 16, 1), 4, seed=1), stripes_cnn((16, 16, 1), 4, seed=2)
    for one, two in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (model.get_weights()[0] != other.get_weights()[0]).any()


def test_metric() -> None:
    labels = np.array([0, 2, 3, 3], np.int32)
    right, mixed = np.eye(4)[labels], np.eye(4)[[0, 3, 2, 0]]
    assert diagonal_confusion(labels, right) == 0
    assert diagonal_confusion(labels, mixed) == 2 / 3
    assert np.isnan(diagonal_confusion(labels[:1], right[:1]))

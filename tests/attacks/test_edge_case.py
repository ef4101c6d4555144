"""Edge cases: which images are rare, who holds them, and on what success is measured."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

import tffl
from tffl.attacks import attacks
from tffl.attacks.edge_case import EdgeCase, rarest, rarity
from tffl.config import build
from tffl.core.errors import UsageError
from tffl.data.federation import Dataset, Federation
from tffl.record.run_directory import RunDirectory


def create(**options: object) -> EdgeCase:
    return attacks.create("edge-case", {"source": "green", "target": "red", **options})


def noisy(count: int, seed: int, odd: list[int] | None = None) -> np.ndarray:
    """Images that vary along two directions, but for the odd ones."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(2, 6 * 6 * 2))
    flat = 120 + generator.normal(size=(count, 2)) * [12, 6] @ directions
    flat += generator.normal(0, 1.5, flat.shape)
    for row in odd or []:
        flat[row] += generator.normal(0, 25, flat.shape[1])
    return np.clip(np.rint(flat), 0, 255).astype(np.uint8).reshape(count, 6, 6, 2)


@pytest.fixture
def data() -> Dataset:
    """240 training images of 4 classes, of class 1 the 3rd, 10th and 41st odd; 80 test images."""
    train, test = noisy(240, 0, [9, 37, 161]), noisy(80, 1, [5, 29])
    return Dataset(
        name="colors",
        train_images=train,
        train_labels=(np.arange(240) % 4).astype(np.int32),
        train_ids=np.arange(500, 740),
        test_images=test,
        test_labels=(np.arange(80) % 4).astype(np.int32),
        class_names=("red", "green", "blue", "gray"),
    )


def test_rarity_by_hand() -> None:
    # Two pixels: the first varies by 1, the other not at all.
    known = np.array([[[[99], [50]]], [[[101], [50]]]], np.uint8)
    images = np.array(
        [[[[100], [50]]], [[[102], [50]]], [[[104], [50]]], [[[100], [51]]]], np.uint8
    )
    scores = rarity(images, known)
    np.testing.assert_allclose(scores[:3], [0, 4, 16], atol=1e-9)
    assert scores[3] > 1000


def test_rarity_orders_as_probabilistic_pca_does() -> None:
    known, images = noisy(300, 2), noisy(50, 3, [4, 17])
    pca = PCA(15, svd_solver="full").fit(known.reshape(300, -1) / 255.0)
    likelihood = pca.score_samples(images.reshape(50, -1) / 255.0)
    # scikit-learn divides the variance by n − 1 instead of n, which changes no order.
    assert np.argsort(-rarity(images, known)).tolist() == np.argsort(likelihood).tolist()
    assert set(np.argsort(likelihood)[:2].tolist()) == {4, 17}


def test_identical_images_are_all_alike() -> None:
    same = np.full((5, 6, 6, 2), 7, np.uint8)
    np.testing.assert_allclose(rarity(same, same), 0, atol=1e-12)


def test_large_images_are_scored_by_their_shrunk_selves() -> None:
    big = np.repeat(np.repeat(noisy(20, 4), 8, axis=1), 8, axis=2)
    assert np.isfinite(rarity(big, big)).all()


def test_rarest_rounds_and_takes_at_least_one() -> None:
    scores = np.array([0.0, 3, 1, 3, 2, 5])
    assert rarest(scores, 0.01).tolist() == [5]
    assert rarest(scores, 0.34).tolist() == [1, 5]
    assert rarest(scores, 0.5).tolist() == [1, 3, 5]


def test_the_odd_images_of_the_class_are_reserved(data) -> None:
    attack = create(tail=0.05)
    attack.check(data)
    assert attack.reserve(data).tolist() == [9, 37, 161]
    assert (data.train_labels[create(tail=0.3).reserve(data)] == 1).all()


def test_success_is_measured_on_the_rare_test_images(data, federation) -> None:
    attack = create(tail=0.1)
    before = federation(data, [100, 100], attack.reserve(data))
    success = attack.success_set(before, seed=0)
    np.testing.assert_array_equal(success.images, data.test_images[[5, 29]])
    assert success.targets.tolist() == [0, 0]
    assert success.targets.dtype == np.int32
    assert success.source == "test"


def test_only_colluders_hold_the_tail(data, federation) -> None:
    attack = create(tail=0.05, rate=0.25)
    before = federation(data, [60, 60, 60, 50], attack.reserve(data))
    after = attack.poison(before, np.array([1, 3]), seed=2)
    assert after.images is before.images
    held = []
    for client, (old, new) in enumerate(zip(before.clients, after.clients, strict=True)):
        tail = np.isin(after.pool_ids[new.indices], [509, 537, 661])
        if client not in (1, 3):
            assert new is old
            assert not tail.any()
            continue
        assert tail.sum() == int(0.25 * len(old) + 0.5)
        assert (new.labels[tail] == 0).all()
        np.testing.assert_array_equal(new.indices[~tail], old.indices[~tail])
        np.testing.assert_array_equal(new.labels[~tail], old.labels[~tail])
        assert (new.indices.dtype, new.labels.dtype) == (np.int32, np.int32)
        held.extend(new.indices[tail].tolist())
    # 15 + 13 copies of three images, dealt in turn over both.
    assert sorted(np.unique(held, return_counts=True)[1].tolist()) == [9, 9, 10]
    other = attack.poison(before, np.array([1, 3]), seed=3)
    assert other.clients[1].indices.tolist() != after.clients[1].indices.tolist()


def test_a_pool_without_the_other_images_still_finds_the_tail(data, federation) -> None:
    """With `train_limit` the pool holds fewer images, at other positions."""
    attack = create(tail=0.05, rate=1.0)
    kept = np.r_[9, 37, 161, 200:220]
    whole = federation(data, [1])
    pool = Federation(data, data.train_images[kept], data.train_ids[kept], whole.clients)
    after = attack.poison(pool, np.array([0]), seed=0)
    assert after.pool_ids[after.clients[0].indices].tolist() == [509]


def test_nobody_malicious_changes_nothing(data, federation) -> None:
    before = federation(data, [5, 5])
    assert create().poison(before, np.empty(0, np.int64), seed=0) is before
    with pytest.raises(UsageError, match=r"poisons nothing: attack.rate = 0.01 is less than"):
        create(rate=0.01).poison(before, np.array([0]), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "green"}, "are the same class: choose two"),
        ({"source": 0}, "are the same class"),
        ({"source": "gren"}, "in attack.source: 'gren': did you mean 'green'"),
        ({"target": 7}, "attack.target = 7 is not a class of colors"),
    ],
)
def test_refuses_what_cannot_work(data, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**options).check(data)


def test_refuses_a_class_without_images(dataset) -> None:
    names = (*"abcdefghijklmnopqrstuvwxyz", *"ABCD")
    with pytest.raises(UsageError, match=r"no test image of attack\.source = 25"):
        create(source=25, target=0).check(dataset(np.arange(30), class_names=names))
    with pytest.raises(UsageError, match=r"no training image of attack\.source = 25"):
        create(source=25, target=0).check(dataset(np.arange(20), class_names=names))


@pytest.mark.parametrize(
    ("option", "value"),
    [("tail", 0), ("tail", 0.6), ("rate", 2), ("radius", -1), ("radius", "inf")],
)
def test_refuses_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^attack\.{option} = .* is not allowed"):
        create(**{option: value})


def test_radius_confines_what_is_sent(tmp_path) -> None:
    def norms(**options: float) -> tuple[np.ndarray, np.ndarray]:
        """Norms of the malicious and of the honest updates of one round."""
        values = {
            "data": {"dataset": "digits", "train_limit": 200, "test_limit": 100},
            "federation": {"clients": 4, "malicious": 2, "rounds": 1},
            "model": {"name": "lenet5"},
            "attack": {"name": "edge-case", "source": 7, "target": 1, **options},
            "record": {"store_updates": "all", "export": False, "figures": False},
        }
        path = tmp_path / "-".join(map(str, ["run", *options.values()]))
        run = tffl.simulate(build(values), path)
        updates = next(RunDirectory.open(path).updates())
        malicious = np.isin(updates.client_ids, run.summary["malicious_clients"])
        lengths = updates.norms(trainable=True)
        return lengths[malicious], lengths[~malicious]

    free, honest = norms()
    assert free.min() > 0.05
    inside, same = norms(radius=0.05)
    np.testing.assert_allclose(inside, 0.05, rtol=1e-5)
    np.testing.assert_array_equal(same, honest)
    scaled, _ = norms(radius=0.05, scale=-3.0)
    np.testing.assert_allclose(scaled, 0.15, rtol=1e-5)

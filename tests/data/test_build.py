import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tffl.config import DataConfig, build
from tffl.core.errors import UsageError
from tffl.data.build import build_federation, check_any_prepared, load_dataset, split
from tffl.data.federation import Dataset

NOBODY = np.empty(0, dtype=np.int64)
PARTITIONS = ("iid", "dirichlet", "shards", "round-robin")


def numbered(count, classes=5, first_id=100):
    """Returns a dataset whose image i is filled with i and has label i mod classes and an id."""
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(pixels, (count, 4, 4, 1)).copy()
    labels = (np.arange(count) % classes).astype(np.int32)
    ids = np.arange(first_id, first_id + count)
    names = tuple(map(str, range(classes)))
    return Dataset("numbered", images, labels, ids, images[:classes], labels[:classes], names)


def config(clients=4, seed=0, **data):
    return build({"seed": seed, "data": data, "federation": {"clients": clients}})


@settings(deadline=None, max_examples=60)
@given(
    partition=st.sampled_from(PARTITIONS),
    server=st.booleans(),
    limit=st.none() | st.integers(60, 200),
    reserved=st.sets(st.integers(0, 199), max_size=20),
    seed=st.integers(0, 100),
)
def test_every_index_points_to_its_image_and_label(partition, server, limit, reserved, seed):
    dataset = numbered(200)
    reserved = np.array(sorted(reserved), dtype=np.int64)
    experiment = config(
        seed=seed, partition=partition, beta=10.0, server_shard=server, train_limit=limit
    )
    federation = build_federation(experiment, dataset, reserved)
    shards = list(federation.clients) + ([federation.server] if server else [])
    assert len(federation.clients) == 4
    assert (federation.server is not None) == server

    seen = np.concatenate([shard.indices for shard in shards])
    assert len(set(seen.tolist())) == len(seen)
    for shard in shards:
        assert shard.indices.dtype == shard.labels.dtype == np.int32
        pixels = federation.images[shard.indices, 0, 0, 0]
        assert np.array_equal(pixels % 5, shard.labels)
        assert np.array_equal(federation.pool_ids[shard.indices], pixels.astype(int) + 100)

    held = set((federation.pool_ids[seen] - 100).tolist())
    assert not held & set(reserved.tolist())
    assert set(reserved.tolist()) <= set((federation.pool_ids - 100).tolist())
    assert len(federation.images) == len(federation.pool_ids) == len(held | set(reserved.tolist()))
    assert len(held) == min(limit or 200, 200 - len(reserved))


def test_images_are_copied_only_if_some_are_dropped():
    dataset = numbered(50)
    federation = build_federation(config(), dataset, np.array([3, 7]))
    assert federation.images is dataset.train_images
    assert len(build_federation(config(train_limit=20), dataset, NOBODY).images) == 20


def test_train_limit_is_balanced_over_classes():
    federation = build_federation(config(train_limit=20), numbered(200), NOBODY)
    assert federation.class_counts().sum(axis=0).tolist() == [4] * 5


def test_server_gets_shard_0_of_round_robin():
    federation = build_federation(
        config(clients=3, partition="round-robin", server_shard=True), numbered(10), np.array([0])
    )
    # The reserved image is removed before the others are split.
    assert federation.server.indices.tolist() == [1, 5, 9]
    assert [client.indices.tolist() for client in federation.clients] == [[2, 6], [3, 7], [4, 8]]


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shards"])
def test_split_depends_on_the_seed(partition):
    dataset = numbered(200)

    def holdings(seed):
        federation = build_federation(
            config(seed=seed, partition=partition, beta=5.0), dataset, NOBODY
        )
        return [client.indices.tolist() for client in federation.clients]

    assert holdings(1) == holdings(1)
    assert holdings(1) != holdings(2)


def test_appended_images_have_no_id():
    federation = build_federation(config(), numbered(20), NOBODY)
    grown, indices = federation.append(np.zeros((2, 4, 4, 1), dtype=np.uint8))
    assert indices.tolist() == [20, 21]
    assert grown.pool_ids[indices].tolist() == [-1, -1]
    assert np.array_equal(grown.pool_ids[:20], federation.pool_ids)


def advice(error):
    """Returns the settings that an error message suggests."""
    text = str(error).partition(": ")[2].removesuffix(" would work")
    return dict(part.split(" = ") for part in text.split(", or "))


@pytest.mark.parametrize(("beta", "seed"), [(0.05, 0), (0.02, 3), (0.2, 1)])
def test_settings_suggested_by_an_error_work(beta, seed):
    labels = np.arange(300) % 10
    experiment = config(clients=25, seed=seed, partition="dirichlet", beta=beta)
    with pytest.raises(UsageError, match="without images") as error:
        split(experiment, labels)
    found = advice(error.value)
    assert found
    for key, value in found.items():
        options = {"clients": 25, "seed": seed, "beta": beta, key: float(value)}
        options = {key: int(v) if key != "beta" else v for key, v in options.items()}
        assert all(map(len, split(config(partition="dirichlet", **options), labels)))


def test_too_few_images_are_refused():
    with pytest.raises(UsageError, match="10 training images are too few for 12 shards"):
        build_federation(config(clients=11, server_shard=True), numbered(10), NOBODY)


def test_digits_is_the_default_dataset():
    dataset = load_dataset(config().data)
    assert dataset.name == "digits"
    federation = build_federation(config(clients=10), dataset, NOBODY)
    assert federation.class_counts().sum() == len(dataset.train_labels)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_thousand_clients_are_split_quickly(partition):
    count = 50_000
    labels = (np.arange(count) % 10).astype(np.int32)
    images = np.zeros((count, 1, 1, 1), dtype=np.uint8)
    names = tuple("0123456789")
    dataset = Dataset("many", images, labels, np.arange(count), images[:1], labels[:1], names)
    begin = time.process_time()
    build_federation(config(clients=1000, partition=partition, beta=1.0), dataset, NOBODY)
    # Measured: 0.05 s or less; a loop over samples in Python takes longer than this.
    assert time.process_time() - begin < 1.0


def test_one_prepared_dataset_is_enough(tmp_path):
    missing, other = (DataConfig(dataset=name, data_dir=tmp_path) for name in ("mnist", "cifar10"))
    check_any_prepared([missing, DataConfig(), other])
    check_any_prepared([])
    with pytest.raises(UsageError, match="dataset mnist is not prepared"):
        check_any_prepared([missing, other])

"""Clients whose samples are drawn on access: their samples, and the memory that they need."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner

from tffl.attacks.label_flip import LabelFlip
from tffl.config import build
from tffl.core import seeds
from tffl.core.errors import UsageError
from tffl.data.build import build_federation
from tffl.data.federation import ClientData, Dataset, ReplacedClients
from tffl.data.sampled import SampledClients, sample_class_counts
from tffl.record.identity import identity
from tffl_cli.main import cli

SIZES = (50, 100, 150, 200)
"""Number of images of each class."""


def pool() -> ClientData:
    """Returns the images 1000 … 1499 in random order of classes."""
    labels = np.repeat(np.arange(len(SIZES), dtype=np.int32), SIZES)
    order = np.random.default_rng(0).permutation(len(labels))
    return ClientData(np.arange(1000, 1500, dtype=np.int32), labels[order])


def clients(number: int = 100, samples: int = 40, beta: float = 0.5, seed: int = 0):
    return SampledClients(pool(), number, samples, beta, seed)


def test_client_depends_on_neither_access_order_nor_number_of_clients():
    few, many = clients(100), clients(1_000_000)
    first = [few[client] for client in range(100)]
    for client in reversed(range(100)):
        assert many[client] == few[client] == first[client]
    assert len(many) == 1_000_000 and many[999_999] != many[0]
    assert clients(seed=1)[0] != few[0]
    for wrong in (-1, 100):
        with pytest.raises(IndexError):
            few[wrong]


def test_samples_have_the_labels_of_the_pool():
    truth = dict(zip(pool().indices.tolist(), pool().labels.tolist(), strict=True))
    for data in clients(20):
        assert len(data) == 40
        assert data.indices.dtype == data.labels.dtype == np.int32
        assert (np.diff(data.indices) >= 0).all()
        assert [truth[index] for index in data.indices.tolist()] == data.labels.tolist()


def test_classes_are_dirichlet_and_images_uniform_within_a_class():
    beta, samples = 0.7, 60
    found = np.stack([np.bincount(d.labels, minlength=4) for d in clients(3000, samples, beta)])
    shares = np.array(SIZES) / sum(SIZES)
    np.testing.assert_allclose(found.mean(axis=0) / samples, shares, atol=0.02)
    # Counts are Dirichlet-multinomial: variance n p (1 − p) (n + α) / (1 + α), with α = β C.
    alpha = beta * 4
    expected = samples * shares * (1 - shares) * (samples + alpha) / (1 + alpha)
    np.testing.assert_allclose(found.var(axis=0), expected, rtol=0.1)

    everyone = np.concatenate([data.indices for data in clients(3000, samples, beta)])
    times = np.bincount(everyone - 1000)
    assert len(times) == 500 and times.min() > 200
    assert 0.8 < times.mean() / 360 < 1.2


@pytest.mark.parametrize(("beta", "classes"), [(1e-3, 1), (1e6, 4)])
def test_small_beta_gives_one_class_and_large_beta_all(beta, classes):
    held = [len(np.unique(data.labels)) for data in clients(50, 200, beta)]
    assert np.median(held) == classes


def test_class_counts_are_drawn_without_images():
    counts = sample_class_counts(np.array([0.5, 0.5]), 1.0, 10, seeds.generator(0, "test"))
    assert counts.sum() == 10 and counts.shape == (2,)


def test_memory_does_not_grow_with_the_number_of_clients():
    def peak(number: int) -> int:
        tracemalloc.start()
        many = clients(number)
        for client in (0, number // 2, number - 1):
            many[client]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)  # the first call also allocates what later calls reuse
    assert abs(peak(1_000_000) - peak(1000)) < 20_000


def dataset() -> Dataset:
    images = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1).repeat(4, 1).repeat(4, 2)
    labels = (np.arange(200) % 5).astype(np.int32)
    names = tuple("abcde")
    return Dataset("tiny", images, labels, np.arange(200), images[:5], labels[:5], names)


def federation(clients: int = 1000, reserved: tuple[int, ...] = (), **data: object):
    config = {"data": {"partition": "sampled", **data}, "federation": {"clients": clients}}
    return build_federation(build(config), dataset(), np.array(reserved, dtype=np.int64))


def test_clients_draw_no_reserved_images_and_none_of_the_server():
    made = federation(reserved=(3, 7), server_samples=20, samples_per_client=30)
    assert made.server is not None and len(made.server) == 20
    kept = {3, 7, *made.pool_ids[made.server.indices].tolist()}
    assert len(kept) == 22 and {3, 7} <= {*made.pool_ids.tolist()}
    drawn = {*np.concatenate([data.indices for data in made.clients]).tolist()}
    assert {*made.pool_ids[sorted(drawn)].tolist()} == {*range(200)} - kept
    for client in (0, 999):
        data = made.clients[client]
        np.testing.assert_array_equal(made.images[data.indices, 0, 0, 0] % 5, data.labels)
    assert made.class_counts().sum(axis=1).tolist() == [30] * 1000


def test_a_million_clients_share_the_images_and_options_change_the_identity():
    assert len(federation(1_000_000).clients) == 1_000_000
    plain = identity(build({"data": {"partition": "sampled"}}))
    chosen = identity(build({"data": {"partition": "sampled", "samples_per_client": 7}}))
    assert chosen != plain
    with pytest.raises(UsageError, match=r"set data\.server_samples"):
        federation(server_shard=True)


def test_an_attack_stores_the_data_of_malicious_clients_only():
    before = federation(1_000_000)
    malicious = np.array([5, 500_000])
    after = LabelFlip(mode="all-to-all").poison(before, malicious, seed=0)
    assert isinstance(after.clients, ReplacedClients) and {*after.clients.replaced} == {5, 500_000}
    assert len(after.clients) == 1_000_000
    for client in malicious.tolist():
        np.testing.assert_array_equal(
            after.clients[client].labels, 4 - before.clients[client].labels
        )
    assert after.clients[6] == before.clients[6]


def test_data_show_prints_sampled_clients():
    show = ["data", "show", "--partition", "sampled", "--clients"]
    result = CliRunner().invoke(cli, [*show, "20"], catch_exceptions=False)
    assert "20 clients who share 1442 training images, each with 50 images" in result.output
    result = CliRunner().invoke(cli, [*show, "1000000"])
    assert result.exit_code == 2 and "show the first 10000 with --clients" in result.stderr


@pytest.mark.parametrize("beta", [1e-300, 1e-30, 1e-3, 1e3, 1e30, 1e300])
def test_extreme_beta_draws_more_clients_than_images(beta: float) -> None:
    many = clients(1000, 40, beta)  # of 500 images
    for client in (0, 499, 500, 999):
        counts = np.bincount(many[client].labels, minlength=4)
        assert counts.sum() == 40
        if beta < 1e-29:
            assert counts.max() == 40  # one class
        if beta > 1e29:
            assert (counts > 0).all()  # as all images are

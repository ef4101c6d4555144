from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tffl.core.errors import UsageError
from tffl.data import partition

labels_of = (
    st.integers(1, 12)
    .flatmap(lambda classes: st.lists(st.integers(0, classes - 1), min_size=1, max_size=200))
    .map(lambda values: np.array(values, dtype=np.int32))
)
seeds = st.integers(0, 2**32 - 1)
# Many examples have too few samples for their clients, and are refused.
REFUSALS_ARE_FINE = [HealthCheck.filter_too_much]


def draw(name, labels, count, seed, beta=1.0, classes=1):
    generator = np.random.default_rng(seed)
    if name == "iid":
        return partition.iid(labels, count, generator)
    if name == "dirichlet":
        return partition.dirichlet(labels, count, beta, generator)
    if name == "shards":
        return partition.shards(labels, count, classes, generator)
    return partition.round_robin(labels, count)


def attempt(*args, **options):
    """Returns the split, or discards an example that is refused with a reason."""
    try:
        return draw(*args, **options)
    except UsageError as error:
        assert "\n" not in str(error)
        assume(False)


NAMES = ("iid", "dirichlet", "shards", "round-robin")


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60, suppress_health_check=REFUSALS_ARE_FINE)
@given(labels=labels_of, count=st.integers(1, 12), seed=seeds, classes=st.integers(1, 4))
def test_shards_are_disjoint_ascending_and_not_empty(name, labels, count, seed, classes):
    parts = attempt(name, labels, count, seed, classes=classes)
    assert len(parts) == count
    assert all(len(part) for part in parts)
    assert all(np.all(np.diff(part) > 0) for part in parts)
    merged = np.concatenate(parts)
    assert len(np.unique(merged)) == len(merged)
    assert set(merged.tolist()) <= set(range(len(labels)))


@pytest.mark.parametrize("name", ["iid", "dirichlet", "round-robin"])
@settings(deadline=None, max_examples=60, suppress_health_check=REFUSALS_ARE_FINE)
@given(labels=labels_of, count=st.integers(1, 12), seed=seeds)
def test_every_sample_belongs_to_a_shard(name, labels, count, seed):
    parts = attempt(name, labels, count, seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30, suppress_health_check=REFUSALS_ARE_FINE)
@given(labels=labels_of, count=st.integers(1, 8), seed=seeds)
def test_the_same_generator_gives_the_same_split(name, labels, count, seed):
    first, second = (attempt(name, labels, count, seed) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


@settings(deadline=None, max_examples=60, suppress_health_check=REFUSALS_ARE_FINE)
@given(labels=labels_of, count=st.integers(1, 12), seed=seeds)
def test_iid_and_round_robin_sizes_differ_by_at_most_one(labels, count, seed):
    for name in ("iid", "round-robin"):
        sizes = [len(part) for part in attempt(name, labels, count, seed)]
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None, max_examples=80)
@given(labels=labels_of, count=st.integers(1, 12), seed=seeds, classes=st.integers(1, 5))
def test_each_shard_holds_exactly_k_classes(labels, count, seed, classes):
    parts = attempt("shards", labels, count, seed, classes=classes)
    assert [len(set(labels[part].tolist())) for part in parts] == [classes] * count
    present = set(labels.tolist())
    if count * classes >= len(present):
        assert sum(map(len, parts)) == len(labels)
    # A class's samples are cut evenly between those who hold it.
    for label in present:
        held = [int(np.sum(labels[part] == label)) for part in parts]
        held = [amount for amount in held if amount]
        assert not held or max(held) - min(held) <= 1


def test_shards_give_large_classes_more_pieces():
    labels = np.repeat([0, 1], [900, 100])
    parts = draw("shards", labels, 10, seed=0, classes=1)
    assert Counter(int(labels[part[0]]) for part in parts) == {0: 9, 1: 1}
    assert {len(part) for part in parts} == {100}


def test_two_of_ten_classes_over_a_hundred_clients():
    labels = np.arange(6000) % 10
    parts = draw("shards", labels, 100, seed=0, classes=2)
    assert {len(part) for part in parts} == {60}
    assert len({tuple(sorted(set(labels[part].tolist()))) for part in parts}) > 20


def unevenness(labels, beta, seed):
    """Returns the mean total variation distance between the classes of a shard and of all."""
    parts = draw("dirichlet", labels, 10, seed, beta=beta)
    overall = np.bincount(labels) / len(labels)
    shares = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
    return np.mean([np.abs(share - overall).sum() / 2 for share in shares])


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_a_small_beta_is_more_uneven(seed):
    labels = np.arange(10_000) % 10
    try:
        values = [unevenness(labels, beta, seed) for beta in (0.1, 1.0, 100.0)]
    except UsageError:
        assume(False)
    assert values[0] > values[1] > values[2]


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    # Each shard's share of a class is Beta(β, (n − 1)β): mean 1/n, variance (n − 1)/(n²(nβ + 1)).
    beta, count = 0.5, 5
    labels = np.arange(40_000) % 40
    shares = np.stack(
        [
            np.bincount(labels[part], minlength=40) / 1000
            for seed in range(20)
            for part in draw("dirichlet", labels, count, seed, beta=beta)
        ]
    )
    assert shares.mean() == pytest.approx(1 / count)
    expected = (count - 1) / (count**2 * (count * beta + 1))
    assert shares.var() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_samples_than_shards_are_refused(name):
    with pytest.raises(UsageError, match="3 training images are too few for 4 shards"):
        draw(name, np.array([0, 1, 2]), 4, seed=0)


def test_dirichlet_refuses_empty_shards():
    with pytest.raises(UsageError, match=r"beta = 0\.001 leaves \d+ of 20 shards without images"):
        draw("dirichlet", np.arange(200) % 2, 20, seed=0, beta=0.001)


def test_shards_refuse_more_classes_than_there_are():
    with pytest.raises(UsageError, match="3 classes a client is not allowed"):
        draw("shards", np.arange(50) % 2, 5, seed=0, classes=3)


def test_shards_refuse_too_few_samples():
    with pytest.raises(UsageError, match="too few for 5 shards of 2 classes"):
        draw("shards", np.array([0, 0, 0, 0, 0, 0, 1]), 5, seed=0, classes=2)


def test_round_robin_follows_the_order():
    parts = partition.round_robin(np.zeros(7, dtype=int), 3)
    assert [part.tolist() for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]


@settings(deadline=None, max_examples=60, suppress_health_check=REFUSALS_ARE_FINE)
@given(labels=labels_of, limit=st.integers(1, 250), seed=st.none() | seeds)
def test_balanced_choice_is_as_even_as_the_classes_allow(labels, limit, seed):
    generator = None if seed is None else np.random.default_rng(seed)
    chosen = partition.balanced(labels, limit, generator)
    assert len(chosen) == min(limit, len(labels))
    assert np.all(np.diff(chosen) > 0)
    taken, sizes = np.bincount(labels[chosen], minlength=12), np.bincount(labels, minlength=12)
    # Nobody has two more than a class that still has samples left.
    unfinished = taken[(taken < sizes) & (sizes > 0)]
    assert not len(unfinished) or taken.max() <= unfinished.min() + 1


EXTREMES = (1e-300, 1e-30, 1e-3, 1e3, 1e30, 1e300)


@pytest.mark.parametrize("beta", EXTREMES)
@pytest.mark.parametrize("count", [1, 3])
def test_every_beta_splits_or_gives_a_one_line_error(beta, count):
    labels = np.repeat(np.arange(5, dtype=np.int32), 40)
    for seed in range(5):
        try:
            parts = draw("dirichlet", labels, count, seed, beta=beta)
        except UsageError as error:
            assert "\n" not in str(error) and beta < 1
            continue
        assert sorted(np.concatenate(parts).tolist()) == list(range(200))
        if beta > 1e29:
            assert max(map(len, parts)) - min(map(len, parts)) <= 5  # one of each class


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", EXTREMES)
def test_more_clients_than_images_are_refused(name, beta):
    labels = np.arange(6, dtype=np.int32) % 3
    with pytest.raises(UsageError, match=r"7") as error:
        draw(name, labels, 7, seed=0, beta=beta)
    assert "\n" not in str(error.value)


def test_dirichlet_size_makes_uneven_sizes_of_the_same_classes() -> None:
    labels = np.arange(6000) % 3
    shards = partition.dirichlet_size(labels, 6, 0.7, np.random.default_rng(4))
    sizes = [len(shard) for shard in shards]
    assert sum(sizes) == 6000 and max(sizes) > 3 * min(sizes) > 0
    assert sorted(np.concatenate(shards).tolist()) == list(range(6000))
    for shard in shards:
        if len(shard) > 300:
            shares = np.bincount(labels[shard]) / len(shard)
            np.testing.assert_allclose(shares, 1 / 3, atol=0.09)
    with pytest.raises(UsageError, match=r"leaves \d of 6 shards without images: use a"):
        partition.dirichlet_size(labels[:12], 6, 0.05, np.random.default_rng(0))


def test_a_share_of_every_class_is_held_out_but_never_all_of_one() -> None:
    labels = np.array([0] * 10 + [1] * 3 + [2])
    kept = partition.held_out(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[kept], minlength=3).tolist() == [2, 1, 0]
